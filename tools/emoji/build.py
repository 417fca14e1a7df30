"""Build the embedded data set: emoji of seven vendors' styles, their features, and sentence embeddings of their names.

    npm ci --ignore-scripts                # in this folder: the pinned pictures and names
    python tools/emoji/build.py            # with the extras `images` and `text`, and resvg-py 0.5.0

Everything that is drawn by lot is ordered by SHA-256 of (SEED, purpose, name), so it is the same on every machine, and it
was fixed before anything was trained on the data. Running the build twice gives identical files.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.csgraph import connected_components

from unseen.data import ClassTable, Dataset, Pictures, Provenance, Split
from unseen.data.native import save
from unseen.encoders import ImageEncoder, TextEncoder
from unseen.storage import write_json, write_text

HERE = Path(__file__).parent
SEED = 20261121

STYLES = ("noto", "noto-v1", "twemoji", "emojione", "fluent-emoji", "fluent-emoji-flat", "fxemoji")
LOOK_ALIKES = (("noto", "noto-v1"), ("fluent-emoji", "fluent-emoji-flat"))
"""Styles whose pictures of one class are often nearly the same drawing: they stay on one side of the train/test cut."""

DESIGN_LICENCES = {"fxemoji": ("CC BY 4.0", "CC-BY-4.0")}
"""Where the author's own licence file says something else about the drawings than the package, which names the code's."""

GROUPS = {3: "animals-nature", 4: "food-drink", 5: "travel-places", 6: "activities", 7: "objects"}
"""Groups of emojibase that are used. People, smileys, flags and symbols, and with them skin tones and gender, are not."""
DEMO_GROUPS = frozenset({3, 4})
DEMO_UNSEEN, FULL_UNSEEN, FULL_SPLITS = 20, 160, 3

LEFT_OUT = {
    ("noto-v1", "cricket"): "the game, not the insect",
    ("emojione", "cricket"): "the game, not the insect",
    ("fxemoji", "cat"): "a cat's face, which is a class of its own",
    ("fxemoji", "dog"): "a dog's face, which is a class of its own",
    ("fxemoji", "mouse"): "a mouse's face, which is a class of its own",
    ("fxemoji", "pig"): "a pig's face, which is a class of its own",
    ("fxemoji", "tiger"): "a tiger's face, which is a class of its own",
    ("fxemoji", "sunglasses"): "a face with sunglasses",
    ("fxemoji", "keyboard"): "a musical keyboard",
    ("fxemoji", "window"): "a window on a screen",
    ("fxemoji", "tram car"): "all black",
}
"""By style and class: a picture that was found by name but shows something else. Found by looking at all of them."""

FEWEST_PICTURES = 5
TEST_PICTURES = 2
"""Pictures of a seen class that are kept for testing; one where the lot offers a pair first and nothing else fits."""

ALIKE_PICTURES, ALIKE_NAMES, ALIKE_BOTH = 0.80, 0.90, (0.65, 0.70)
"""Two classes are near-duplicates if the cosine of their pictures (median over the styles that drew both, features less
the style's mean) or of their names' embeddings reaches its bound, or if both reach the lower pair. Set by looking."""

SIDE, MARGIN = 256, 28
"""Pixels of a raster and of the white margin on every side of it."""

TILE, TILE_COLUMNS = 64, 32
FIXTURES = ("frog", "egg", "star", "pill")
"""Classes whose SVGs stand among the tests' fixtures, which rebuild them."""

LARGEST_FILE = 8_900_000
LARGEST_FOLDER = 14_000_000


@dataclass(frozen=True)
class Icon:
    """One vendor's picture of a class: which style, its name there, and a complete SVG."""

    style: str
    name: str
    svg: str


@dataclass(frozen=True)
class Emoji:
    """One class: CLDR short name, the sentence that is encoded, emojibase's subgroup and the pictures found."""

    name: str
    sentence: str
    group: int
    subgroup: str
    code_points: str
    icons: tuple[Icon, ...]


def sentence_of(label: str, keywords: Iterable[str]) -> str:
    """What is said about a class: '<CLDR short name>: <keyword>, <keyword>, …', keywords in emojibase's order."""
    others = [word for word in keywords if word.casefold() != label.casefold()]
    return f"{label}: {', '.join(others)}" if others else label


class IconSet:
    """The pictures of one style, found by code point where the set says it, else by name."""

    def __init__(self, folder: Path, style: str) -> None:
        package = folder / "@iconify-json" / style
        self.style = style
        self.data = _json(package / "icons.json")
        self.info = _json(package / "info.json")
        self.version = _json(package / "package.json")["version"]
        self.by_code_point = {_plain_code(code): name for code, name in _json(package / "chars.json").items()}
        aliases = {alias: entry["parent"] for alias, entry in self.data.get("aliases", {}).items() if len(entry) == 1}
        # fxemoji writes its names without hyphens
        self.by_name = {name.replace("-", ""): parent for name, parent in aliases.items()}
        self.by_name |= {name.replace("-", ""): name for name in self.data["icons"]}

    def find(self, code_points: str, names: Iterable[str]) -> Icon | None:
        """The picture with these code points, or with the first of these names that the set knows."""
        if self.by_code_point:
            name = self.by_code_point.get(code_points)
        else:
            name = next((found for name in names if (found := self.by_name.get(name.replace("-", "")))), None)
        return None if name is None else Icon(self.style, name, self._svg(name))

    def names_of(self, code_points: str) -> list[str]:
        """The set's name of these code points, then its aliases for it."""
        name = self.by_code_point.get(code_points)
        aliases = (alias for alias, entry in self.data["aliases"].items() if entry["parent"] == name)
        return [] if name is None else [name, *aliases]

    def _svg(self, name: str) -> str:
        icon = self.data["icons"][name]
        while "parent" in icon:
            icon = self.data["icons"][icon["parent"]]
        width, height = (icon.get(side, self.data.get(side, 16)) for side in ("width", "height"))
        left, top = icon.get("left", 0), icon.get("top", 0)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>\n'
        )


def read_emoji(folder: Path) -> tuple[list[Emoji], dict[str, IconSet]]:
    """All emoji of the used groups with the pictures that the styles have of them, in emojibase's order."""
    sets = {style: IconSet(folder, style) for style in STYLES}
    subgroups = _json(folder / "emojibase-data/meta/groups.json")["subgroups"]
    found = []
    for entry in sorted(_json(folder / "emojibase-data/en/data.json"), key=lambda entry: entry.get("order", 0)):
        if entry.get("group") not in GROUPS:
            continue
        code_points = _plain_code(entry["hexcode"])
        names = sets["noto"].names_of(code_points)
        drawn_by = [style for style in STYLES if (style, entry["label"]) not in LEFT_OUT]
        icons = (sets[style].find(code_points, names) for style in drawn_by)
        found.append(
            Emoji(
                name=entry["label"],
                sentence=sentence_of(entry["label"], entry.get("tags", ())),
                group=entry["group"],
                subgroup=subgroups[str(entry["subgroup"])],
                code_points=code_points,
                icons=tuple(icon for icon in icons if icon),
            )
        )
    return found, sets


def raster(svg: str) -> Image.Image:
    """A picture of 256 × 256 pixels: the drawing in the middle, on white, with the margin around it."""
    inner = SIDE - 2 * MARGIN
    placed = svg.replace("<svg ", f'<svg x="{MARGIN}" y="{MARGIN}" width="{inner}" height="{inner}" ', 1)
    framed = f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{SIDE}">{placed}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=framed, background="#ffffff", skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def lot(*what: object) -> str:
    """A number drawn once and for all for `what`, as a string to sort by."""
    return hashlib.sha256("\x1f".join(map(str, (SEED, *what))).encode()).hexdigest()


def near_duplicates(
    features: NDArray[np.float32], labels: NDArray[np.int64], styles: NDArray[np.int64], names: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The near-duplicate group of every class, numbered by its first class: classes of one group are all seen or all unseen.

    Args:
        features, labels, styles: (n, d), (n,) and (n,) over all pictures.
        names: (C, a) embeddings of the bare names.
    """
    classes = len(names)
    alike = np.full((len(STYLES), classes, classes), np.nan, np.float32)
    for style in range(len(STYLES)):
        rows = np.flatnonzero(styles == style)
        centred = features[rows] - features[rows].mean(axis=0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        alike[style][np.ix_(labels[rows], labels[rows])] = centred @ centred.T
    # every two classes share a style, because every class has Noto's and Twemoji's picture
    pictures, names = np.nanmedian(alike, axis=0), names @ names.T
    both = (pictures >= ALIKE_BOTH[0]) & (names >= ALIKE_BOTH[1])
    _, component = connected_components((pictures >= ALIKE_PICTURES) | (names >= ALIKE_NAMES) | both, directed=False)
    _, first = np.unique(component, return_index=True)
    return first[component].astype(np.int64)


def drawn_unseen(purpose: str, candidates: list[int], alike: NDArray[np.int64], emoji: list[Emoji], count: int) -> list[int]:
    """`count` classes by lot, near-duplicate groups whole; a group that would overshoot is passed over."""
    units: dict[int, list[int]] = {}
    for position in candidates:
        units.setdefault(int(alike[position]), []).append(position)
    taken: list[int] = []
    for first in sorted(units, key=lambda first: lot(purpose, emoji[first].name)):
        if len(taken) + len(units[first]) <= count:
            taken += units[first]
    return sorted(taken)


def test_styles(emoji: Emoji) -> set[str]:
    """The styles whose pictures of this class are kept for testing when it is seen; look-alike styles together."""
    available = [icon.style for icon in emoji.icons]
    units = [pair for pair in LOOK_ALIKES if set(pair) & set(available)]
    units += [(style,) for style in available if not any(style in pair for pair in LOOK_ALIKES)]
    chosen: set[str] = set()
    for unit in sorted(units, key=lambda unit: lot("test", emoji.name, *unit)):
        present = set(unit) & set(available)
        if len(chosen) + len(present) <= TEST_PICTURES:
            chosen |= present
    return chosen


def make_splits(emoji: list[Emoji], labels: NDArray[np.int64], alike: NDArray[np.int64]) -> dict[str, Split]:
    """`demo` over animals, plants, food and drink; `full0` to `full2` over everything, each with its own unseen classes."""
    kept = np.array([icon.style in test_styles(one) for one in emoji for icon in one.icons])
    everything = list(range(len(emoji)))
    demo = [position for position in everything if emoji[position].group in DEMO_GROUPS]
    wanted = {"demo": (demo, DEMO_UNSEEN)} | {f"full{k}": (everything, FULL_UNSEEN) for k in range(FULL_SPLITS)}
    splits = {}
    for name, (candidates, count) in wanted.items():
        unseen = np.isin(labels, drawn_unseen(name, candidates, alike, emoji, count))
        seen = np.isin(labels, candidates) & ~unseen
        train, test_seen, test_unseen = (np.flatnonzero(rows) for rows in (seen & ~kept, seen & kept, unseen))
        splits[name] = Split.from_rows(name, labels, train, test_seen, test_unseen)
    return splits


def make_pictures(demo: Split, labels: NDArray[np.int64], rasters: list[Image.Image]) -> Pictures:
    """Thumbnails of what the demo's page shows: all its test pictures, and one training picture of every seen class."""
    _, first = np.unique(labels[demo.train], return_index=True)
    rows = np.sort(np.concatenate([demo.test_seen, demo.test_unseen, demo.train[first]])).astype(np.int64)
    lines = -(-len(rows) // TILE_COLUMNS)
    sheet = Image.new("RGB", (TILE_COLUMNS * TILE, lines * TILE), "white")
    border = MARGIN - 8
    for position, row in enumerate(rows):
        tile = rasters[row].crop((border, border, SIDE - border, SIDE - border)).resize((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(tile, (position % TILE_COLUMNS * TILE, position // TILE_COLUMNS * TILE))
    stored = io.BytesIO()
    sheet.save(stored, "WEBP", quality=85, method=6)
    return Pictures(stored.getvalue(), "image/webp", TILE, TILE_COLUMNS, rows)


def licence_of(icons: IconSet) -> tuple[str, str]:
    """The licence of a style's drawings: as people write it, and as SPDX does."""
    stated = icons.info["license"]
    return DESIGN_LICENCES.get(icons.style, (stated["title"], stated["spdx"]))


def attribution(icons: IconSet) -> str:
    """The line that has to stand wherever this style's pictures are shown."""
    author = icons.info["author"]
    return f"{icons.info['name']}: {author['name']}, {licence_of(icons)[0]} ({author['url']})"


def build(folder: Path) -> tuple[Dataset, list[list[str]], list[list[str]]]:
    """The data set, the groups of near-duplicates by name, and a table with the origin of every row.

    Args:
        folder: `node_modules` with the pinned packages.
    """
    found, sets = read_emoji(folder)
    emoji = [one for one in found if len(one.icons) >= FEWEST_PICTURES]
    icons = [icon for one in emoji for icon in one.icons]
    print(f"{len(found)} classes with {sum(len(one.icons) for one in found)} pictures; ", end="")
    print(f"{len(emoji)} classes with at least {FEWEST_PICTURES}, {len(icons)} pictures")
    labels = np.repeat(np.arange(len(emoji)), [len(one.icons) for one in emoji]).astype(np.int64)
    styles = np.array([STYLES.index(icon.style) for icon in icons])

    rasters = [raster(icon.svg) for icon in icons]
    images, texts = ImageEncoder(), TextEncoder()
    features = images.encode(rasters)
    names = texts.encode(one.name for one in emoji)
    alike = near_duplicates(features, labels, styles, names)
    groups = [[emoji[k].name for k in np.flatnonzero(alike == first)] for first in np.unique(alike)]
    groups = [group for group in groups if len(group) > 1]
    rate = f"{sum(map(len, groups))} of {len(emoji)} classes stand in {len(groups)} groups of near-duplicates"
    print(rate)
    splits = make_splits(emoji, labels, alike)
    for split in splits.values():
        print(
            f"{split.name}: {len(split.seen)} seen and {len(split.unseen)} unseen classes; {len(split.train)} pictures to "
            f"train, {len(split.test_seen)} and {len(split.test_unseen)} to test"
        )

    versions = ", ".join(f"@iconify-json/{style} {sets[style].version}" for style in STYLES)
    names_version = _json(folder / "emojibase-data/package.json")["version"]
    dataset = Dataset(
        name="emoji",
        features=features.astype(np.float16),
        labels=labels,
        classes=ClassTable(
            names=tuple(one.name for one in emoji),
            embeddings=texts.encode(one.sentence for one in emoji),
            descriptions=tuple(one.sentence for one in emoji),
            groups=tuple(one.subgroup for one in emoji),
        ),
        splits=splits,
        provenance=Provenance(
            source=(
                f"npm {versions}; names, keywords and groups: emojibase-data {names_version} (CLDR); built by "
                f"tools/emoji/build.py with seed {SEED}; {rate}, which are never cut into seen and unseen"
            ),
            feature_extractor=(
                f"{images.description}; SVG rastered by resvg-py {resvg_py.__version__} at {SIDE} px on white with a "
                f"margin of {MARGIN} px; stored as float16"
            ),
            embedding_source=f"{texts.description}; of the sentence '<CLDR short name>: <keyword>, <keyword>, ...'",
            licence=(
                "pictures: "
                + ", ".join(f"{style} {licence_of(sets[style])[1]}" for style in STYLES)
                + "; names and keywords: MIT and Unicode-3.0"
            ),
        ),
        pictures=make_pictures(splits["demo"], labels, rasters),
        attributions=(
            *(attribution(sets[style]) for style in STYLES),
            "The pictures are shown small and on white, otherwise unchanged; licence texts and links: NOTICE",
            "Names and keywords: emojibase, Miles Johnson, MIT; Unicode CLDR, Unicode, Inc., Unicode License v3",
        ),
    )
    table = [
        [str(row), emoji[label].name, emoji[label].code_points, icon.style, icon.name]
        for row, (label, icon) in enumerate(zip(labels, icons, strict=True))
    ]
    return dataset, groups, table


def write_fixtures(packages: Path, folder: Path) -> None:
    """Write the SVGs of a few small classes as `<class>/<style>.svg`."""
    for one in read_emoji(packages)[0]:
        for icon in one.icons if one.name in FIXTURES else ():
            write_text(folder / one.name / f"{icon.style}.svg", icon.svg)


def main() -> None:
    """Build and write the data set, the table of pictures and the near-duplicates; say what came out."""
    here = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here.add_argument("--packages", type=Path, default=HERE / "node_modules", help="folder with the pinned npm packages")
    here.add_argument("--out", type=Path, default=HERE.parents[1] / "src/unseen/data/emoji")
    here.add_argument("--fixtures", type=Path, default=HERE.parents[1] / "tests/fixtures/emoji")
    here.add_argument("--tables", type=Path, default=HERE, help="folder for pictures.csv and near_duplicates.json")
    options = here.parse_args()
    dataset, groups, table = build(options.packages)
    save(dataset, options.out, largest_file=LARGEST_FILE)
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([["row", "class", "code_points", "style", "icon"], *table])
    write_text(options.tables / "pictures.csv", written.getvalue())
    write_json(options.tables / "near_duplicates.json", {"classes": len(dataset.classes), "groups": groups})
    write_fixtures(options.packages, options.fixtures)
    sizes = {path.name: path.stat().st_size for path in sorted(options.out.iterdir())}
    print("\n".join(f"{size:>10,} {name}" for name, size in sizes.items()), f"{sum(sizes.values()):>10,} together", sep="\n")
    if sum(sizes.values()) > LARGEST_FOLDER or max(sizes.values()) > LARGEST_FILE + 100_000:
        raise SystemExit(
            f"the data set is larger than {LARGEST_FOLDER:,} bytes, or one of its files is too large; leave rows out"
        )


def _plain_code(code_points: str) -> str:
    """Code points in lower case without the variation selector that asks for a coloured picture."""
    return "-".join(part for part in code_points.lower().split("-") if part != "fe0f")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
