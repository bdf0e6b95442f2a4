"""Annotated classes become texts: what a picture's boxes hold, said in English.

The data sets publish boxes and no captions; how often a class occurs is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from modalbind.api import PublishedFolder
from modalbind_thermal.datasets.options import TEMPLATES, AnnotatedOptions

_PLURALS = {
    "person": "people",
    "bicycle": "bicycles",
    "bike": "bicycles",
    "bus": "buses",
    "car": "cars",
    "deer": "deer",
    "dog": "dogs",
    "hydrant": "fire hydrants",
    "light": "traffic lights",
    "motor": "motorcycles",
    "other vehicle": "other vehicles",
    "scooter": "scooters",
    "sign": "street signs",
    "skateboard": "skateboards",
    "stroller": "strollers",
    "train": "trains",
    "truck": "trucks",
}


def class_texts(
    classes: Collection[str], options: AnnotatedOptions, nothing: str = ""
) -> tuple[str, ...]:
    """Return the texts of a picture, one per template; none if they are not asked for.

    Args:
        classes: As published, in any order; a repeated one counts once.
        options: Say whether texts are made, and from which templates.
        nothing: What to say of a picture without a class; empty: no text.

    Example:
        >>> class_texts(["car", "bike"], AnnotatedOptions(texts=True, templates=("{classes}",)))
        ('bicycles and cars',)
    """
    if not options.texts:
        return ()
    words = sorted({_PLURALS.get(name, name) for name in classes}) or [nothing]
    *first, last = words
    joined = f"{', '.join(first)} and {last}" if first else last
    if not joined:
        return ()
    return tuple(
        template.replace("{classes}", joined) for template in options.templates or TEMPLATES
    )


def class_key(classes: Collection[str], options: AnnotatedOptions) -> str:
    """Return the key that pictures of the same classes share if texts are made of them."""
    return "+".join(sorted(set(classes))) if options.texts else ""


def read_boxes(
    source: PublishedFolder, name: str, names: dict[int, str] | None = None
) -> Iterator[tuple[str, set[str]]]:
    """Yield each picture of a COCO file, as it names it, and the classes of its boxes.

    Args:
        source: The data set.
        name: The JSON file.
        names: Class names by id; None reads them from the file's own list.

    Raises:
        ManifestError: If the file is absent, no COCO file, or has a box of an unknown class.
    """
    content = source.read_json(name)
    try:
        if names is None:
            names = {int(row["id"]): str(row["name"]) for row in content["categories"]}
        classes: dict[int, set[str]] = {int(row["id"]): set() for row in content["images"]}
        for box in content["annotations"]:
            classes[int(box["image_id"])].add(names[int(box["category_id"])])
        files = [(int(row["id"]), str(row["file_name"])) for row in content["images"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise source.error(
            f"boxes of {name} asked for",
            f"it is not as published ({type(error).__name__}: {error})",
            f"get it anew from {source.publication.homepage}",
        ) from error
    for number, file_name in files:
        yield file_name, classes[number]
