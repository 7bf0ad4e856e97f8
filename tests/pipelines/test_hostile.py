"""Documents that mean harm, or are not documents: a finding, soon, and never a traceback."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines import Definition, Report
from nuclei_segmentation.pipelines.language.files import LARGEST
from nuclei_segmentation.pipelines.language.findings import MAX_FINDINGS
from tests.helpers.definitions import HERE, Check, found, marked

BOMB = "x0: &x0 [x, x]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]\n" for n in range(1, 30))


def checked(tmp_path: Path, content: bytes) -> Report:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    return Definition(path).check()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"api-version: 0.4.0\nname: &n x\noperators: {HERE}*n\n", "alias"),
        (f"api-version: 0.4.0\nname: {HERE}!!python/object/apply:os.system [id]\n", "tag"),
        (f"api-version: 0.4.0\nname: {HERE}!!str x\n", "tag"),
        (f"api-version: 0.4.0\nname: x\n{HERE}name: y\n", "duplicate-key"),
        (f"api-version: 0.4.0\nname: x\n{HERE}<<: {{a: b}}\n", "merge-key"),
        (f"api-version: 0.4.0\nname: x\n? {HERE}[a]\n: b\n", "bad-key"),
        (f"api-version: 0.4.0\nname: x\n? {HERE}{{a: b}}\n: b\n", "bad-key"),
        (
            f"api-version: 0.4.0\nname: x\n---\n{HERE}name: y\n".replace(f"---\n{HERE}", f"{HERE}---\n"),
            "several-documents",
        ),
        (f"api-version: 0.4.0\nname: x\noperators: [{HERE}\x07]\n", "yaml"),
        (f"api-version: 0.4.0\nname: x\n{HERE}\tb: c\n", "yaml"),
        (f'api-version: 0.4.0\nname: {HERE}"\\UFFFFFFFF"\n', "yaml"),
        (f"{HERE}[]", "wrong-kind"),
        (f"{HERE}text", "wrong-kind"),
        (f"{HERE}", "missing"),
        (f"{HERE}# nothing\n", "missing"),
        (f"---\n{HERE}", "missing"),
    ],
)
def test_what_is_refused_is_found_at_its_place(check: Check, text: str, code: str) -> None:
    plain, line, column = marked(text)
    report = check(plain)
    assert (code, line, column) in found(report) or code == "yaml"
    assert code in {one.code for one in report.findings}
    assert report.pipeline is None
    assert not report.unreadable


def test_lines_are_counted_as_in_editors(check: Check) -> None:
    """To YAML, U+2028 and U+0085 end a line; to an editor they do not."""
    report = check("api-version: 0.4.0\r\ndescription: 'a\u2028b\u0085c'\nname: x\roperators: []\nbad: 1\n")
    assert found(report) == [("missing", 4, 12), ("unknown-key", 5, 1)]


def test_a_placeholder_in_braces_needs_quotes(check: Check) -> None:
    report = check("api-version: 0.4.0\nname: x\nparameters: {A: ${{B}}}\n")
    assert report.findings[0].expected == "put the placeholder in quotes: inside {...} or [...] it needs them"


def test_nothing_is_executed(check: Check, tmp_path: Path) -> None:
    check(f"name: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    assert not (tmp_path / "made").exists()


def test_alias_bombs_cost_nothing(check: Check) -> None:
    start = time.perf_counter()
    codes = {one.code for one in check(BOMB).findings}
    assert "alias" in codes
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "- " * 100_000, "? " * 100_000, "&a " * 80_000,
                                  "a: {" + "x: {" * 30_000, "\n".join(" " * n + "a:" for n in range(600))])  # fmt: skip
def test_deep_nesting_is_refused(check: Check, text: str) -> None:
    start = time.perf_counter()
    report = check(text)
    assert {one.code for one in report.findings} <= {"too-deep", "yaml"}
    assert report.errors
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("content", [
    b"\xff\xfea\x00p\x00i\x00", b"\x00" * 100, b"name: \xe4", b"\xef\xbb\xbf", b"\xef\xbb\xbfname: x\xff",
    b"%YAML 9.9\n---\na: b", b"\x1f\x8b\x08\x00", b"II*\x00" + bytes(range(256)), b"!<!> x", b"%TAG ! x\n---\na",
    b"a: b\n...\nc: d", b"'", b'"\\', b"|\n\t", b"@", b"`", b"- - -\n-", b"? ? ?",
])  # fmt: skip
def test_what_is_not_yaml(tmp_path: Path, content: bytes) -> None:
    report = checked(tmp_path, content)
    assert report.errors
    assert all(one.place.line >= 1 and one.place.column >= 1 for one in report.findings)


def test_bad_encoding_is_found_at_its_place(tmp_path: Path) -> None:
    (finding,) = checked(tmp_path, "api-version: 0.4.0\nname: ä".encode() + b"\xff\n").findings
    assert (finding.code, finding.place.line, finding.place.column) == ("encoding", 2, 8)


def test_a_byte_order_mark_and_other_line_ends_are_fine(tmp_path: Path) -> None:
    text = "api-version: 0.4.0\nname: x\noperators:\n- name: a\n  container: {image: a}\n"
    assert checked(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()).findings == ()


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    (finding,) = checked(tmp_path, b"#" * (LARGEST + 1)).findings
    assert finding.code == "file"
    with (tmp_path / "sparse.yaml").open("wb") as file:
        file.truncate(1 << 40)
    assert Definition(tmp_path / "sparse.yaml").check().unreadable


@pytest.mark.parametrize("path", ["nowhere.yaml", "/dev/zero", "/dev/tty", "/proc/self/mem", "x" * 5000, "/"])
def test_a_file_that_cannot_be_read(tmp_path: Path, path: str) -> None:
    report = Definition(tmp_path / path).check()
    assert report.unreadable
    assert [one.code for one in report.findings] == ["file"]


HEAD = "api-version: 0.4.0\nname: x\noperators:\n"
MANY_MISTAKES = {
    "unknown keys": HEAD + "- {" + ", ".join(f"operaror{n}: 1" for n in range(12_000)) + "}",
    "operators": HEAD + "".join(f"- {{name: o{n}, input: [{{from: p{n}, path: /x}}]}}\n" for n in range(4_500)),
    "duplicates": HEAD + "- {" + ", ".join("name: 1" for n in range(20_000)) + "}",
    "placeholders": HEAD + "- {name: '" + "${{ a }}" * 25_000 + "'}",
    "open placeholders": HEAD + "- {name: '" + "${{" * 80_000 + "'}",
    "parameters": "parameters: {" + ", ".join(f"P{n}: x" for n in range(9_000)) + "}\n" + HEAD
                  + "- {name: x, variables: {" + ", ".join(f"V{n}: '${{{{Q{n}}}}}'" for n in range(4_000)) + "}}",
    "growth": "parameters: {A: " + "x" * 100_000 + "}\n" + HEAD + "- {name: x, variables: {"
              + ", ".join(f"V{n}: '{'${{A}}' * 10}'" for n in range(1_500)) + "}}",
    "long names": HEAD + f"- {{{'x' * 120_000}: 1, name: {'y' * 120_000}}}",
    "cycles": HEAD + "".join(f"- {{name: o{n}, container: {{image: a}}, input: [{{from: o{n ^ 1}, path: /x}}],"
                             f" output: [{{path: /y}}]}}\n" for n in range(2_000)),
    "shape": HEAD.replace("0.4", "0.7") + "- {name: x, output: [{name: o, type: array, element-type: u8, shape: ["
             + "-2, " * 60_000 + "]}]}",
}  # fmt: skip


@pytest.mark.parametrize("kind", MANY_MISTAKES)
def test_checking_many_mistakes_ends_soon(check: Check, kind: str) -> None:
    start = time.perf_counter()
    report = check(MANY_MISTAKES[kind])
    assert report.errors
    assert len(report.findings) <= MAX_FINDINGS
    assert all(len(str(one)) < 5_000 for one in report.findings)
    assert time.perf_counter() - start < 60, "this guards against unbounded growth; it does not promise speed"


def test_no_control_characters_reach_the_terminal(check: Check) -> None:
    text = HEAD + '- name: "\\e[2J\\n\\ud800"\n  "\\e]0;": 1\n  container: {image: "\\e[31m"}\n'
    text += '  input: [{from: "\\r", path: /x}]\n'
    lines = [str(one) for one in check(text).findings]
    assert len(lines) == 4
    cycle = '- {name: "\\e[2J", container: {image: a}, input: [{from: "\\e[2J", path: /x}], output: [{path: /y}]}\n'
    lines += [str(one) for one in check(HEAD + cycle).findings]
    assert all(line.isprintable() for line in lines)


def test_an_alias_is_reported_once(check: Check) -> None:
    text = "api-version: 0.4.0\nname: x\ndescription: &d x\noperators:\n- name: *d\n  container: *d\n  input: *d\n"
    text += (
        "  output: [*d, {path: *d, name: o}]\n  requests: {cpu: *d}\n  variables: {A: *d}\n  models: [*d, {name: *d}]\n"
    )
    text += "- *d\n"
    assert {one[0] for one in found(check(text))} == {"alias", "models"}
