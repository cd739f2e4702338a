"""Files with rewards of one's own: imported once, or anew when written anew; their digest; what cannot be had is said."""

import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from own_rewards import DECORATED, MINE
from rl.own_code import MissingPackage, OwnCodeError, load_function, source_digest
from rl.rewards import RewardError, compute_score, get_rewards


def test_from_eight_threads_a_file_is_imported_once(write):
    write(
        "mine",
        "import time\nimported = globals().get('imported', 0) + 1\ntime.sleep(0.2)\ndef f(completions, **kwargs): return [1.0]\n",
    )
    barrier = threading.Barrier(8)

    def score(_):
        barrier.wait(30)
        return compute_score("any", "a", "9", rewards=["mine.f", "accuracy"], verifier="text")["mine.f"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(score, range(8), timeout=60)) == [1.0] * 8
    assert sys.modules["mine"].imported == 1


WRONG = {
    "no file": ("nowhere.f", "", r"there is no file nowhere\.py beside the training script. Write it into .*scripts"),
    "no file in a folder": ("mine.deep.f", "", r"there is no file mine/deep\.py beside"),
    "no function": ("mine.brevty", "def brevity(): pass", r"unknown reward 'brevty'; did you mean 'brevity'\? \(in .*mine\.py\)"),
    "no function at all": ("mine.f", "x = 1", r"unknown reward 'f'; known: .*mine\.py"),
    "no callable": ("mine.x", "x = 1", r"reward 'mine\.x' is no function, but int in .*mine\.py"),
    "an error": ("mine.f", "x = 1\ny = x / 0\n", r"mine\.py, line 2, cannot be imported: ZeroDivisionError: division by zero"),
    "a syntax error": ("mine.f", "def f(:\n", r"mine\.py cannot be imported: SyntaxError: .*\(mine\.py, line 1\)"),
    "a script that ends": ("mine.f", "import sys\n\nsys.exit(2)\n", r"mine\.py, line 3, cannot be imported: SystemExit: 2"),
    "a package": ("mine.f", "\nimport no_such_package\n", r"mine\.py, line 2, needs 'no_such_package', which is neither a file"),
    "a package with the name's beginning": ("mine.f", "import min\n", r"mine\.py, line 1, needs 'min'"),
    "part of a package": ("mine.f", "import rl.no_such_part\n", r"needs 'rl.no_such_part'"),
    "a name that is none": ("mine.f()", "", r"write file.function, such as my_rewards.mine"),
    "a path": ("scripts/mine.py", "", r"write file.function, such as my_rewards.mine"),
    "a dot in front": (".f", "", r"write file.function"),
    "no dot": ("brevity", "", r"unknown reward 'brevity'; .*named file.function, and the file lies beside"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_had_is_said_in_words(write, name, content, message):
    write("mine", content)
    with pytest.raises(RewardError, match=rf"(?s)^rewards: .*{message}") as caught:
        get_rewards([name])
    missing = "needs '" in message
    assert isinstance(caught.value.__cause__, MissingPackage if missing else OwnCodeError) or "." not in name
    assert isinstance(caught.value.__cause__, MissingPackage) is missing


@pytest.mark.parametrize("text", ["# caf\xe9\n", "x = 1\ny = 'caf\xe9'\n"], ids=["in a comment", "in a text"])
def test_a_file_in_another_encoding_says_so_in_its_first_line(write, tmp_path, text):
    """An import of Python 3.11 reads no comments; the same file run as a script is refused."""
    write("mine", "")
    path, function = Path(sys.path[0], "mine.py"), "def f(completions, **kwargs): return [1.0]\n"
    path.write_bytes((text + function).encode("latin-1"))
    with pytest.raises(
        RewardError, match=rf"mine.py is not UTF-8 \(byte 0xe9, line {text.count(chr(10))}\): save it as"
    ):
        get_rewards(["mine.f"])
    path.write_bytes(("# -*- coding: latin-1 -*-\n" + text + function).encode("latin-1"))
    assert get_rewards(["mine.f"])


def test_a_file_that_could_not_be_imported_can_be_mended(write):
    write("mine", "1 / 0")
    with pytest.raises(OwnCodeError):
        load_function("mine.f", "reward")
    write("mine", "def f(completions, **kwargs): return [4.0]")
    (function,) = get_rewards(["mine.f"])
    assert function(["a"]) == [4.0]


def test_a_file_that_was_written_a_moment_ago_is_found(write):
    for count in range(20):  # within the resolution of the folder's time
        write(f"mine_{count}", f"def f(): return {count}")
        assert load_function(f"mine_{count}.f", "function")() == count


def test_a_cell_that_writes_its_file_anew_changes_the_reward(write):
    path = write("mine", DECORATED)
    (words,) = get_rewards(["mine.words"])
    assert words(["a b"], answer=["9"]) == [2.0]
    path.write_text(DECORATED.replace("float(len(", "10.0 * float(len("))
    (words,) = get_rewards(["mine.words"])
    assert words(["a b"], answer=["9"]) == [20.0]
    path.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(RewardError, match="line 1, cannot be imported: ZeroDivisionError"):
            get_rewards(["mine.words"])


def test_a_file_written_anew_in_the_same_second_with_the_same_size_is_read(write):
    path = write("mine", "def f(): return 1\n")
    os.utime(path, (10**9, 10**9))
    assert load_function("mine.f", "function")() == 1
    path.write_text("def f(): return 2\n")
    os.utime(path, ns=(10**18 + 5, 10**18 + 5))
    assert load_function("mine.f", "function")() == 2


def test_a_file_beside_it_that_is_written_anew_is_read_by_all_that_import_it(write):
    deep = write("deep", "LIMIT = 1\n")
    helper = write("beside", "from deep import LIMIT\n")
    for name in ("mine", "other"):
        write(name, "from beside import LIMIT\n\ndef f(): return LIMIT\n")
    both = ("mine.f", "other.f")
    assert [load_function(name, "function")() for name in both] == [1, 1]
    first = sys.modules["beside"]
    assert [load_function(name, "function")() for name in both] == [1, 1] and sys.modules["beside"] is first
    deep.write_text("LIMIT = 2\n")
    assert [load_function(name, "function")() for name in both] == [2, 2]
    helper.write_text("LIMIT = 3\n")
    assert [load_function(name, "function")() for name in both] == [3, 3]


@pytest.mark.parametrize("content", ["", "LIMIT = \n"])
def test_a_file_beside_it_can_be_mended(write, content):
    helper = write("beside", content)
    write("mine", "from beside import LIMIT\n\ndef f(): return LIMIT\n")
    with pytest.raises(OwnCodeError, match="mine.py, line 1, cannot be imported"):
        load_function("mine.f", "function")
    helper.write_text("LIMIT = 4\n")
    assert load_function("mine.f", "function")() == 4


def test_names_are_not_taken_twice(write):
    write("mine", MINE)
    for names in (["accuracy", "accuracy"], ["mine.topic", "accuracy", "mine.topic"]):
        with pytest.raises(
            RewardError, match=f"'{re.escape(names[0])}' stands there twice; weigh it with reward_weights"
        ):
            get_rewards(names)
    write("other", "from rl.rewards import reward\n@reward('accuracy')\ndef f(completions, **kwargs): pass\n")
    with pytest.raises(
        RewardError, match="other.py, line 2, cannot be imported: ValueError: There is a reward 'accuracy'"
    ):
        get_rewards(["other.f"])
    write("summed", "from rl.rewards import reward\n@reward('score')\ndef f(completions, **kwargs): pass\n")
    with pytest.raises(RewardError, match="'score' is what the weighted sum is called"):
        get_rewards(["summed.f"])


def test_the_digest_sees_the_files_that_a_file_imports(write):
    helper = write("beside", "LIMIT = 1\n")
    write(
        "mine",
        "import json\n\nfrom beside import LIMIT\n\ndef f(completions, **kwargs):\n    return [LIMIT]\n",
    )
    before = source_digest(["mine.f"])
    assert source_digest(["mine.f"]) == before
    helper.write_text("LIMIT = 2\n")
    assert source_digest(["mine.f"]) != before


@pytest.mark.parametrize(
    ("helper", "statement"),
    [
        ("helpers.words", "from helpers.words import LIMIT"),
        ("helpers.words", "from helpers import words"),
        ("helpers.words", "import helpers.words"),
        ("helpers.__init__", "from helpers import LIMIT"),
        ("helpers.__init__", "import helpers"),
    ],
)
def test_files_in_packages_are_seen_by_the_digest_and_read_anew(write, helper, statement):
    value = (
        "LIMIT"
        if statement.endswith("LIMIT")
        else f"{statement.split(' import ')[-1].split('import ')[-1]}.LIMIT"
    )
    path = write(helper, "LIMIT = 1\n")
    write("mine", f"{statement}\n\ndef f(): return {value}\n")
    before = source_digest(["mine.f"])
    assert load_function("mine.f", "function")() == 1
    path.write_text("LIMIT = 22\n")
    assert source_digest(["mine.f"]) != before
    assert load_function("mine.f", "function")() == 22


@pytest.mark.parametrize("name", ["words.json", "data/words.json", "helpers/words.json"])
def test_files_that_own_code_names_are_seen_by_the_digest_and_read_anew(write, tmp_path, name):
    read = (
        "Path(__file__).with_name('words.json')"
        if name[0] == "h"
        else f"Path(__file__).parents[1] / '{name}'"
    )
    write(
        "helpers.words",
        f"import json\nfrom pathlib import Path\nODD = ('\\0', 'x' * 9999, '/etc/hosts', '..', '')\nWORDS = json.loads(({read}).read_text())\n",
    )
    write("mine", "from helpers.words import WORDS\n\ndef f(): return WORDS\n")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for words in ("[1]", "[2, 2]"):
        (tmp_path / name).write_text(words)
        (tmp_path / "other.json").write_text(words)
        digest = source_digest(["mine.f"])
        assert str(load_function("mine.f", "function")()) == words
        (tmp_path / "other.json").write_text("[]")
        assert source_digest(["mine.f"]) == digest
    (tmp_path / name).write_text("[1]")
    assert source_digest(["mine.f"]) != digest


@pytest.mark.parametrize("statement", ["from . import util", "from .util import LIMIT", "import beside"])
@pytest.mark.parametrize("changed", ["helpers.util", "helpers.__init__", "beside"])
def test_the_digest_of_a_function_in_a_package(write, statement, changed):
    names = ("helpers.__init__", "helpers.util", "beside", "elsewhere")
    files = {name: write(name, "LIMIT = 1\n") for name in names}
    write("helpers.mine", f"{statement}\n\ndef f(): return 1\n")
    before = source_digest(["helpers.mine.f"])
    files["elsewhere"].write_text("LIMIT = 2\n")
    assert source_digest(["helpers.mine.f"]) == before
    files[changed].write_text("LIMIT = 3\n")
    imported = changed == "helpers.__init__" or (changed == "beside") == ("beside" in statement)
    assert (source_digest(["helpers.mine.f"]) != before) == imported


def test_the_digest_follows_nothing_that_is_installed(write, tmp_path, monkeypatch):
    """A package there imports half of the others, and each has a version of its own."""
    installed = tmp_path / "site-packages"
    (installed / "judges").mkdir(parents=True)
    (installed / "judges" / "__init__.py").write_text(
        "from judges import deep\n\ndef f(): return deep.LIMIT\n"
    )
    (installed / "judges" / "deep.py").write_text("LIMIT = 1\n")
    monkeypatch.syspath_prepend(installed)
    write("mine", "import judges\nfrom judges import f\n")
    before = source_digest(["mine.f", "judges.f"])
    (installed / "judges" / "deep.py").write_text("LIMIT = 2\n")
    assert source_digest(["mine.f", "judges.f"]) == before


def test_the_digest_is_of_the_files_that_are_named(write):
    path = write("mine", MINE)
    write("borrows", "from mine import topic\n")
    first = source_digest(["mine.topic", "borrows.topic", "mine.weighted", "mine.partly"])
    assert source_digest(["mine.weighted", "mine.partly", "borrows.topic", "mine.topic"]) == first
    borrowed = source_digest(["borrows.topic"])
    path.write_text(MINE + "# changed")
    assert source_digest(["borrows.topic"]) != borrowed
    with pytest.raises(OwnCodeError, match="there is no file"):
        source_digest(["nowhere.f"])
