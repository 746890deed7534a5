"""Words of a stranger in CSV, XML, Markdown, LaTeX and build logs."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ElementTree

import pytest

from ffr.markup import csv_cell, latex_text, markdown_text, xml_text
from ffr.text import visible


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(mark):
    cell = csv_cell(f"{mark}cmd|'/C calc'!A0")
    assert cell == f"'{mark}cmd|'/C calc'!A0"
    file = io.StringIO()
    csv.writer(file).writerow([cell, csv_cell("plain = 1")])
    assert next(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [cell, "plain = 1"]


def test_no_line_is_a_command_of_a_build():
    assert visible("m\n ::error file=a::leaked") == "m\n ⟨::⟩error file=a::leaked"


def test_xml_holds_what_it_can():
    text = xml_text("a\x00<b>\ud800\ufffe\U0001f600")
    assert text == "a\ufffd<b>\ufffd\ufffd\U0001f600"
    element = ElementTree.Element("e")
    element.text = text
    assert ElementTree.fromstring(ElementTree.tostring(element)).text == text


def test_markdown_and_latex_stay_on_one_line():
    assert markdown_text("a\n# b\x1b[31m") == r"a # b␛\[31m"
    assert latex_text("a\n\\input{x}") == r"a \textbackslash{}input\{x\}"
