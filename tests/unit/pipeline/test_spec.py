"""Pipeline text: what parses, how it prints, and where an error points."""

from __future__ import annotations

import dataclasses
import enum
import math
import operator
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snn_optimizer.errors import InputError, PipelineSpecError
from snn_optimizer.pipeline.spec import GroupSpec, PassSpec, Pipeline, PresetSpec, Size, parse

LIMIT = 2**63

# A loaded machine must not turn into a failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# -- the law --------------------------------------------------------------------------------

pass_names = st.builds(operator.add, st.sampled_from("aZ"), st.text("aZ09-_.", max_size=6))
keys = st.builds(operator.add, st.sampled_from("aZ"), st.text("aZ09-", max_size=4))
any_text = st.text(st.characters(codec=None, categories=None), max_size=12) | st.sampled_from(
    [
        "true",
        "false",
        "inf",
        "-inf",
        "nan",
        "1",
        "1e3",
        "4KiB",
        "",
        "a,b=c",
        "a b",
        "it's",
        'say "x"',
        "\\",
        "\ud800",
    ]
)
scalars = (
    st.booleans()
    | st.integers(-LIMIT, LIMIT - 1)
    | st.floats(allow_nan=False)
    | st.integers(0, LIMIT // 1024 - 1).map(lambda kib: Size(kib * 1024))
    | any_text
)
values = scalars | st.lists(scalars, min_size=2, max_size=4).map(tuple)
options = st.dictionaries(keys, values, max_size=4).map(lambda d: tuple(d.items()))
leaves = st.builds(PassSpec, pass_names, options) | st.builds(PresetSpec, pass_names)
elements = st.recursive(
    leaves,
    lambda inner: st.builds(GroupSpec, pass_names, options, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    max_leaves=8,
)
pipelines = st.builds(Pipeline, st.lists(elements, max_size=4).map(tuple))


@unhurried
@given(pipelines)
def test_printed_text_parses_to_the_same_pipeline(pipeline):
    text = str(pipeline)
    again = parse(text)
    assert again == pipeline
    assert repr(again) == repr(pipeline)  # 1, 1.0 and true are equal, their types are not
    assert str(again) == text
    assert text.isprintable()


@unhurried
@given(st.text(st.sampled_from('ab1-_.,={}()@"\\ \n'), max_size=30))
def test_any_text_parses_or_is_refused_with_a_place(text):
    refused: PipelineSpecError | None = None
    try:
        pipeline = parse(text)
    except PipelineSpecError as error:
        refused = error
    if refused is None:
        assert parse(str(pipeline)) == pipeline
    else:
        assert 0 <= refused.start < refused.end <= len(text) + 1
        assert len(refused.text) == len(text)
        assert str(refused).count("\n") == 2


# -- what parses ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_empty_text_is_the_empty_pipeline(text):
    assert parse(text) == Pipeline()
    assert str(Pipeline()) == ""


def test_passes_groups_presets_and_options():
    text = "fixpoint{max=8}(canonicalize,fold-constants{max-growth=4KiB},@O1),fuse"
    assert parse(text) == Pipeline(
        (
            GroupSpec(
                "fixpoint",
                (("max", 8),),
                (
                    PassSpec("canonicalize"),
                    PassSpec("fold-constants", (("max-growth", Size(4096)),)),
                    PresetSpec("O1"),
                ),
            ),
            PassSpec("fuse"),
        )
    )
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("+3", 3),
        ("0.001", 0.001),
        ("1e-3", 0.001),
        ("2.", 2.0),
        (".5", 0.5),
        ("-1E+2", -100.0),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("4KiB", Size(4096)),
        ("3MiB", Size(3 * 2**20)),
        ("2GiB", Size(2**31)),
        ("0KiB", Size(0)),
        ("true", True),
        ("false", False),
        ("to-value", "to-value"),
        ("_x.weight", "_x.weight"),
        ("nan", "nan"),
        ('"true"', "true"),
        ("'4KiB'", "4KiB"),
        ('"2:4"', "2:4"),
        ('"a, b=c}"', "a, b=c}"),
        (r'"\\ \" \' \n \r \t \u00e9 \U0001F9E0"', "\\ \" ' \n \r \t \u00e9 \U0001f9e0"),
        ("'say \"x\"'", 'say "x"'),
        ("1,2", (1, 2)),
        ("a,b", ("a", "b")),
        ("a, 0.5 ,true", ("a", 0.5, True)),
    ],
)
def test_values(written, value):
    (spec,) = parse(f"p{{key={written}}}").elements
    assert spec.options == (("key", value),)
    assert repr(spec.options) == repr((("key", value),))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a , b", "a,b"),
        (" fixpoint { max = 8 } ( a , @ O1 ) ", "fixpoint{max=8}(a,@O1)"),
        ("a{\n  x=1\n  y=2\n}", "a{x=1 y=2}"),
        ("a{x=1,y=2}", "a{x=1 y=2}"),
        ("a{x=1, y=2}", "a{x=1 y=2}"),
        ("a{x=1,2,y=3}", "a{x=1,2 y=3}"),
        ("a{x=1,y z=2}", "a{x=1,y z=2}"),
        ("a{measured,x=2}", "a{measured x=2}"),
        ("a{measured,fast}", "a{measured fast}"),
        ("a{measured=true}", "a{measured}"),
        ("a{measured=false}", "a{measured=false}"),
        ("a{max_growth=4096KiB}", "a{max-growth=4MiB}"),
        ("a{x=1500KiB}", "a{x=1500KiB}"),
        ("a{x='b'}", "a{x=b}"),
        ('a{x="b c"}', 'a{x="b c"}'),
        ("a{x=1e3}", "a{x=1000.0}"),
        ("a{x=true,false}", "a{x=true,false}"),
    ],
)
def test_canonical_text(text, canonical):
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


def test_a_comma_before_key_and_equals_starts_an_option_and_otherwise_a_value():
    (spec,) = parse("a{x=1,y=2 z=p,q}").elements
    assert spec.options == (("x", 1), ("y", 2), ("z", ("p", "q")))


def test_names_are_kept_as_written():
    assert parse("eliminate_dead").elements == (PassSpec("eliminate_dead"),)
    assert parse("vendor.pass").elements == (PassSpec("vendor.pass"),)


def test_groups_nest_to_a_bound():
    assert str(parse("f(" * 64 + "a" + ")" * 64)) == "f(" * 64 + "a" + ")" * 64
    with pytest.raises(PipelineSpecError, match="nest more than 64 deep") as caught:
        parse("f(" * 65 + "a" + ")" * 65)
    assert caught.value.start == 129
    with pytest.raises(PipelineSpecError):
        parse("f(" * 100_000)
    siblings = ",".join(["f(a)"] * 100)
    assert str(parse(siblings)) == siblings


# -- errors ---------------------------------------------------------------------------------

ERRORS = [
    # text, what is underlined (the gap at the end is written as "$"), message
    ("fixpoint{max=3}(cse,«,»dce)", "expected a pass name"),
    ("a,«$»", "expected a pass name"),
    ("«,»a", "expected a pass name"),
    ("f(«)»", "expected a pass name"),
    ("«(»a)", "expected a pass name"),
    ("«{»x}", "expected a pass name"),
    ("a «b»", "expected ',' between passes"),
    ("a«=»3", "expected ',' between passes"),
    ("a«}»", "expected ',' between passes"),
    ("a«)»", "')' closes no group"),
    ("f(a)«)»", "')' closes no group"),
    ("f«(»a", "this '(' is never closed"),
    ("f(g«(»a", "this '(' is never closed"),
    ("f(a «b»)", "expected ',' or ')'"),
    ("«3a»", "'3a' is not a pass name"),
    ("«a;b»,c", "'a;b' is not a pass name"),
    ("@«$»", "expected a preset name"),
    ("@«@O1»", "'@O1' is not a preset name"),
    ("@O1«{»x}", "the preset '@O1' takes neither options nor a body"),
    ("@O1«(»x)", "the preset '@O1' takes neither options nor a body"),
    ("a«{»", "this '{' is never closed"),
    ("a«{»x", "this '{' is never closed"),
    ("a«{»x=", "this '{' is never closed"),
    ("a«{»x=1", "this '{' is never closed"),
    ("a«{»x=1,", "this '{' is never closed"),
    ("a{«}»", "expected an option name"),
    ("a{«=»1}", "expected an option name"),
    ("a{x,«}»", "expected an option name"),
    ("a{«1»}", "'1' is not an option name"),
    ("a{«x.y»=1}", "'x.y' is not an option name"),
    ("a{x=«}»", "expected a value for 'x'"),
    ("a{x=1,«}»", "expected a value for 'x'"),
    ("a{x=1,«,»2}", "expected a value for 'x'"),
    ('a{x="1"«y»=2}', "expected a space or '}' after the option"),
    ("a{x=1«)»", "expected a space or '}' after the option"),
    ("a{x=1 «x»=2}", "option 'x' is given twice"),
    ("a{x_y=1 «x-y»=2}", "option 'x-y' is given twice"),
    ("a{x=«2:4»}", "'2:4' is no number and no word; as text it is \"2:4\""),
    ("a{x=«1.2.3»}", "'1.2.3' is no number and no word"),
    ("a{x=«4KB»}", "a size is a whole number of KiB, MiB or GiB, as in 4KiB"),
    ("a{x=«1.5MiB»}", "a size is a whole number of KiB, MiB or GiB, as in 4KiB"),
    ("a{x=«-4KiB»}", "a size is a whole number of KiB, MiB or GiB, as in 4KiB"),
    ("a{x=«9223372036854775808»}", "the number does not fit in 64 bits"),
    ("a{x=«8589934592GiB»}", "the number does not fit in 64 bits"),
    ("a{x=«" + "9" * 5000 + "»}", "the number does not fit in 64 bits"),
    ('a{x=«"abc}»', "this quote is never closed"),
    ('a{x="b«\\q»"}', "'\\q' is not an escape"),
    ('a{x="«\\u12»"}'.replace("\\u12»", "\\u»12"), "'\\u' is not an escape"),
    ('a{x="«\\U00110000»"}', "'\\U00110000' is not an escape"),
    ('a{x="«\\»', "this backslash escapes nothing"),
]


@pytest.mark.parametrize(("marked", "message"), ERRORS, ids=[e[0][:40] for e in ERRORS])
def test_an_error_underlines_its_place(marked, message):
    start = marked.index("«")
    end = marked.index("»") - 1
    text = marked.replace("«", "").replace("»", "").replace("$", "")
    with pytest.raises(PipelineSpecError) as caught:
        parse(text)
    error = caught.value
    assert (error.text, error.start, error.end) == (text, start, end)
    first, shown, underline = str(error).split("\n")
    assert first.startswith(message)
    assert shown == f"  {text}"
    assert underline == "  " + " " * start + "^" + "~" * (end - start - 1)
    assert isinstance(error, InputError)


def test_the_place_is_exact_in_text_of_several_lines():
    with pytest.raises(PipelineSpecError) as caught:
        parse("a,\n\tb{x=\u2028?}")
    assert (caught.value.start, caught.value.end) == (9, 10)
    assert str(caught.value).split("\n")[1:] == ["  a,  b{x= ?}", "           ^"]


# -- values of the program ------------------------------------------------------------------


def test_sizes_print_as_they_are_written_and_are_integers():
    assert [str(Size(n)) for n in (0, 1024, 1536 * 1024, 2**20, 5 * 2**30)] == [
        "0KiB",
        "1KiB",
        "1536KiB",
        "1MiB",
        "5GiB",
    ]
    assert Size(4096) == 4096
    assert f"{Size(4096)} {Size(4096)!r}" == "4KiB Size(4096)"
    assert type(Size(4096) + 1) is int
    again = pickle.loads(pickle.dumps(Size(4096)))  # noqa: S301 -- our own bytes
    assert type(again) is Size


@pytest.mark.parametrize("number", [1, 1000, -1024, 2**63])
def test_sizes_that_text_cannot_hold_are_refused(number):
    with pytest.raises(ValueError, match="not a whole number of KiB"):
        Size(number)


def test_specs_are_frozen_and_hashable():
    pipeline = parse("f{x=1}(a{y=1,2},@O1)")
    assert {pipeline: 1}[parse(str(pipeline))] == 1
    for spec in (pipeline, *pipeline.elements, *pipeline.elements[0].body):
        for field in dataclasses.fields(spec):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(spec, field.name, getattr(spec, field.name))


def test_options_are_normalized():
    class Word(enum.StrEnum):
        LOCAL = "local"

    class Level(enum.IntEnum):
        HIGH = 3

    spec = PassSpec("a", {"max_growth": (1,), "w": Word.LOCAL, "n": Level.HIGH, "x": np.float64(0.5)}.items())
    assert repr(spec.options) == "(('max-growth', 1), ('w', 'local'), ('n', 3), ('x', 0.5))"
    assert GroupSpec("g", (("max_rounds", 2),), [spec]).options == (("max-rounds", 2),)
    assert isinstance(GroupSpec("g", (), [spec]).body, tuple)
    assert isinstance(Pipeline([spec]).elements, tuple)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PassSpec("3a"), "'3a' is not a name"),
        (lambda: PassSpec(""), "'' is not a name"),
        (lambda: PassSpec("a\n"), "is not a name"),
        (lambda: PresetSpec("@O1"), "'@O1' is not a name"),
        (lambda: GroupSpec("a b", (), (PassSpec("a"),)), "'a b' is not a name"),
        (lambda: GroupSpec("g", (), ()), "the group 'g' is empty"),
        (lambda: PassSpec("a", (("x y", 1),)), "'x y' is not an option name"),
        (lambda: PassSpec("a", (("x_y", 1), ("x-y", 1))), "option 'x-y' is given twice"),
        (lambda: PassSpec("a", (("x", ()),)), "empty list"),
        (lambda: PassSpec("a", (("x", math.nan),)), "nan, which pipeline text cannot express"),
        (lambda: PassSpec("a", (("x", None),)), "None, which pipeline text cannot express"),
        (lambda: PassSpec("a", (("x", 2**63),)), "which pipeline text cannot express"),
        (lambda: PassSpec("a", (("x", ((1, 2), 3)),)), "which pipeline text cannot express"),
    ],
)
def test_what_text_cannot_hold_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_parsing_imports_no_pass():
    program = (
        "import sys; from snn_optimizer.pipeline.spec import parse; parse('no-such-pass,prune{units},@O9');"
        "print([m for m in sys.modules if m.partition('.')[0] in ('onnx', 'numpy', 'onnxruntime')"
        " or m.startswith('snn_optimizer.passes')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
