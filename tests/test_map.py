"""`framewalk map`: the same edges as `service_map`, in every form, and where the boxes stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepared import framewalk

from framewalk.queries.drawing import ServiceMap, as_dot, as_mermaid, as_svg, as_text, layers_of

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
SVG = "{http://www.w3.org/2000/svg}"
# Names that a sender could make up, to break out of a language.
HOSTILE = ['a"b', "a\\", "<b>&amp;", "x]|y{z}", "`c`", "#d;", "e\nf", "\x1b[31m", "]]>", "g -> h"]


def read_svg(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - our own


def test_a_picture_of_each_form_has_the_edges_of_the_query(store: Path) -> None:
    asked = framewalk("sql", "service_map", "-s", store, "-f", "json", "--limit", "0")
    rows = json.loads(asked.stdout)["rows"]
    assert len(rows) == 9
    drawn = json.loads(framewalk("map", "-s", store, "-f", "json").stdout)
    by_name = sorted(rows, key=lambda row: (row["source"], row["dest"]))
    assert (drawn["edges"], drawn["truncated"]) == (by_name, False)
    assert drawn["services"] == sorted({row[end] for row in rows for end in ("source", "dest")})
    for form, arrow in (("dot", '" -> "'), ("mermaid", " -->|"), ("text", "→")):
        done = framewalk("map", "-s", store, "-f", form, PYTHONIOENCODING="utf-8")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(arrow) == len(rows)
    picture = read_svg(framewalk("map", "-s", store, "-f", "svg").stdout)
    titles = {title.text or "" for title in picture.iter(f"{SVG}title")}
    calls = [row for row in rows if row["source"] == "productpage.bookinfo"]
    assert calls
    for row in calls:
        (told,) = (one for one in titles if one.startswith(f"{row['source']} -> {row['dest']}: "))
        assert f"{row['calls_per_minute']:g}/min" in told


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with what the map asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("map")
    shipped = (Path(__file__).parent.parent / "queries" / "oal").glob("*.oal")
    shares = "call_cpm|success_cpm|latency_ns_percentile"
    wanted = re.compile(rf"^kubernetes_service_relation_\w+_http_(?:{shares}) [^;]*;", re.MULTILINE)
    found = [line for path in shipped for line in wanted.findall(path.read_text("utf-8"))]
    assert len(found) == 6
    oal, path = folder / "map.oal", folder / "map.duckdb"
    oal.write_text("\n".join(found), encoding="utf-8")
    entities = BOOKINFO / "kubectl.yaml"
    done = framewalk("replay", BOOKINFO, "-e", entities, "-s", path, "--oal", oal)
    assert done.returncode == 0, done.stderr
    return path


def test_text_reads_from_caller_to_called() -> None:
    services = ServiceMap.of_rows(
        [
            ("b.shop", "c.shop", 5.0, 90.0, 1.5),
            ("a.shop", "b.shop", 1200.0, 100.0, 10.25),
            ("a.shop", "Unknown", 0.2, None, None),
            ("Unknown", "a.shop", 3.0, 99.5, 7.0),
            ("b.shop", "eu::d.pay", 50.0, 100.0, 2.0),
        ]
    )
    assert as_text(services, ascii_only=True) == (
        "(no namespace)\n"
        "  Unknown\n"
        "    -> a.shop         3/min      p99 7 ms  0.5% failed\n"
        "\n"
        "shop\n"
        "  a\n"
        "    -> b          1,200/min  p99 10.25 ms\n"
        "    -> Unknown      0.2/min\n"
        "  b\n"
        "    -> eu::d.pay     50/min      p99 2 ms\n"
        "    -> c              5/min    p99 1.5 ms   10% failed\n"
    )


def test_nothing_to_draw_is_drawn() -> None:
    nothing = ServiceMap.of_rows([])
    assert as_text(nothing) == ""
    assert as_dot(nothing).startswith("digraph services {")
    assert as_mermaid(nothing) == "flowchart LR\n"
    assert read_svg(as_svg(nothing)).tag == f"{SVG}svg"


def test_whoever_is_unknown_is_not_one_box_in_the_middle() -> None:
    services = ServiceMap.of_rows(
        [
            ("Unknown", "a.shop", 1.0, 100.0, 1.0),
            ("a.shop", "Unknown", 1.0, 100.0, 1.0),
        ]
    )
    assert services.services == ["Unknown", "a.shop"]
    assert layers_of([edge.ends for edge in services.edges]).ranks == [
        ["Unknown callers"],
        ["a.shop"],
        ["Unknown called"],
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_do_not_break_out_of_a_language(name: str) -> None:
    services = ServiceMap.of_rows([(f"{name}.shop", f"b.{name}", 5.0, 50.0, 1.0)])
    dot = as_dot(services)
    # Without its texts, all of it is ours.
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "T", dot)
    assert not set(bare) & set('"\\<>&`#') - {">"}
    assert bare.count("T -> T") == 1
    for line in as_mermaid(services).splitlines()[1:]:
        bare = re.sub(r'"[^"]*"', "T", line)
        assert re.fullmatch(
            r"\s+(?:s\d+\[T\]|subgraph n\d+\[T\]|end|s0 -->\|T\| s1|s1 -->\|T\| s0|"
            r"linkStyle 0 stroke:#c62828,color:#c62828)",
            bare,
        ), line
    titles = [title.text for title in read_svg(as_svg(services)).iter(f"{SVG}title")]
    said = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in name)
    assert any((title or "").startswith(f"{said}.shop -> b.{said}") for title in titles)
    assert as_text(services).replace("\n", "").isprintable()


NAMES = st.sampled_from([f"s{number}" for number in range(12)])


@given(st.lists(st.tuples(NAMES, NAMES), max_size=40), st.randoms())
def test_each_service_stands_once_and_the_same_map_looks_the_same(
    pairs: list[tuple[str, str]], random: object
) -> None:
    layers = layers_of(pairs)
    placed = [name for rank in layers.ranks for name in rank]
    passed = [name for route in layers.routes.values() for name in route]
    assert len(placed) == len(set(placed))
    assert sorted(set(placed) - set(passed)) == sorted({name for pair in pairs for name in pair})
    mixed = list(pairs)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert layers_of(mixed) == layers


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=40))
def test_callers_stand_left_of_whom_they_call(pairs: list[tuple[int, int]]) -> None:
    # Downhill only, so there is no way around.
    edges = [(f"s{min(pair):02}", f"s{max(pair):02}") for pair in pairs if len(set(pair)) > 1]
    layers = layers_of(edges)
    rank = {name: at for at, names in enumerate(layers.ranks) for name in names}
    for source, dest in edges:
        way = [source, *layers.routes.get((source, dest), ()), dest]
        # Each step is one rank: nothing is crossed by an edge that has no place there.
        assert [rank[name] for name in way] == list(range(rank[source], rank[dest] + 1))


def test_a_service_and_a_namespace_are_asked_for(store: Path) -> None:
    flags = ("--service", "reviews.bookinfo", "--format", "json")
    edges = json.loads(framewalk("map", "-s", store, *flags).stdout)["edges"]
    assert edges
    assert all("reviews.bookinfo" in {edge["source"], edge["dest"]} for edge in edges)
    done = framewalk("map", "-s", store, "--namespace", "nowhere")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nobody called anybody by HTTP in this time" in done.stderr


def test_what_is_left_out_is_said(store: Path) -> None:
    done = framewalk("map", "-s", store, "--limit", "2", "--format", "dot")
    assert done.stdout.count('" -> "') == 2
    assert "these are the busiest 2 edges; --limit 0 draws all" in done.stderr


def test_a_store_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    done = framewalk("map", "-s", tmp_path / "no.duckdb")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
