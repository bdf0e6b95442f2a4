"""English texts of a kind of scene, for data sets that publish labels alone."""

TEMPLATES = (
    "a depth map of a {label}",
    "the depth of a {label}",
    "a photo of a {label}",
    "an indoor scene, a {label}",
    "this is a {label}",
    "{label}",
)
