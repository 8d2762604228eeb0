"""Our keys in OpenRLHF's parser, which is inside its command."""

import argparse

import pytest

from pcr_plugin.openrlhf.parsing import options_added

STOCK = argparse.ArgumentParser.parse_args
OPENRLHF = "--actor.model_name_or_path"


def parser_of(option: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument(option)
    return parser


def test_openrlhfs_parser_gets_our_keys_once() -> None:
    seen: list[argparse.Namespace] = []
    with options_added(seen.append):
        other = parser_of("--other").parse_args(["--other", "x"])
        found = parser_of(OPENRLHF).parse_args(["--actor.update_rule", "pcr"])
    assert vars(other) == {"other": "x"}
    assert seen == [found]
    assert vars(found)["actor.update_rule"] == "pcr"
    assert argparse.ArgumentParser.parse_args is STOCK


def test_a_release_with_another_parser_is_named() -> None:
    with (
        pytest.raises(RuntimeError, match=r"--actor\.update_rule had no effect"),
        options_added(lambda _: None),
    ):
        parser_of("--model").parse_args([])
    assert argparse.ArgumentParser.parse_args is STOCK


def test_an_error_leaves_argparse_as_it_was() -> None:
    with pytest.raises(SystemExit), options_added(lambda _: None):
        parser_of(OPENRLHF).parse_args(["--no.such.option"])
    assert argparse.ArgumentParser.parse_args is STOCK
