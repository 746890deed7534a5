"""The reader whole: predictions, stretches, and its folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder
from safetensors.torch import load_file, save_file

from ffr.dialogue import Dialogue
from ffr.errors import ModelError
from ffr.files import CHECKSUMS_FILE
from ffr.reader.decision import best_set
from ffr.reader.files import FORM
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.reader.settings import ReaderSettings


@pytest.fixture
def long_chat() -> Dialogue:
    return Dialogue.of([(f"u{n % 3}", f"line {n} of {chr(97 + n % 26)}") for n in range(50)])


def test_an_answer_is_the_best_set_of_each_kind(
    reader: Reader, chat: Dialogue, encoder: LetterEncoder
) -> None:
    units = reader.units(chat, encoder, ["soup", "bread", ""])
    queries = reader.query_vectors(["soup", "train"], encoder)
    assert encoder.seen[-2:] == ["? soup", "? train"]
    for found in reader.predict(units, queries):
        assert found.probabilities.shape == (7,)
        by_utterance = found.probabilities[units.utterance_ids >= 0]
        by_image = found.probabilities[units.image_ids >= 0]
        chosen, expected = best_set(by_utterance)
        assert found.utterance_ids == tuple(chosen)  # every utterance is a unit here
        assert found.image_ids == tuple(best_set(by_image)[0])
        assert found.score == pytest.approx(expected * (1 - found.nothing))


def test_logits_are_averaged_and_calibrated(
    reader: Reader, chat: Dialogue, encoder: LetterEncoder
) -> None:
    units, queries = reader.units(chat, encoder), reader.query_vectors(["soup"], encoder)
    with torch.no_grad():
        logits = [network(reader.inputs(units, queries))[0][0] for network in reader.networks]
    reader.settings = dataclasses.replace(reader.settings, scale=0.5, shift=-1.0)
    (found,) = reader.predict(units, queries)
    assert torch.allclose(
        found.probabilities, torch.sigmoid((logits[0] + logits[1]) / 4 - 1), atol=1e-6
    )


@pytest.mark.parametrize(("num_queries", "num_threads"), [(1, 1), (200, 3)])
def test_few_units_are_read_on_one_thread(
    reader: Reader, chat: Dialogue, encoder: LetterEncoder, num_queries: int, num_threads: int
) -> None:
    seen: list[int] = []
    units = reader.units(chat, encoder)
    queries = reader.query_vectors(["soup"] * num_queries, encoder)
    reader.networks[0].register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        reader.predict(units, queries)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {num_threads}


def test_a_picture_gains_by_words_that_are_rarely_so_like_the_query_and_nothing_else_does(
    reader: Reader, chat: Dialogue, encoder: LetterEncoder
) -> None:
    units = reader.units(chat, encoder, ["soup", "bread", ""])
    queries = reader.query_vectors(["soup", "train"], encoder)
    inputs = reader.inputs(units, queries)
    lines = reader.background.lines[reader.background.group_of(units.vectors)]
    likeness = queries @ units.vectors.T
    # of 40 strangers' lines, and one more that never is as close
    closer = ((queries @ lines.T)[:, None] >= likeness[..., None]).sum(-1)
    rarity = -torch.log((closer + 1) / 41)
    with torch.no_grad():
        plain, nothing = reader.logits(inputs)
        reader.settings = dataclasses.replace(
            reader.settings, picture_weight=0.5, picture_usual=1.5
        )
        moved, same = reader.logits(inputs)
    assert torch.equal(nothing, same)
    shown = units.image_ids >= 0
    assert shown.tolist() == [False, False, True, True, True, False, False]
    change = moved - plain
    assert torch.allclose(change[:, 2:4], 0.5 * (rarity[:, 2:4] - 1.5), atol=1e-5)
    assert change[:, 2:4].abs().max() > 0.1
    # the third picture has no words
    assert change[:, [0, 1, 4, 5, 6]].abs().max() == 0


def test_a_weight_of_pictures_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="picture_weight is below 0"):
        ReaderSettings("e", "d", picture_weight=-0.1)
    with pytest.raises(ValueError, match="picture_usual is nan"):
        ReaderSettings("e", "d", picture_usual=float("nan"))


def test_where_nothing_is_likely_the_answer_is_empty(
    reader: Reader, chat: Dialogue, encoder: LetterEncoder
) -> None:
    reader.settings = dataclasses.replace(reader.settings, nothing_shift=9.0)
    (found,) = reader.predict(reader.units(chat, encoder), reader.query_vectors(["x"], encoder))
    assert (found.utterance_ids, found.image_ids) == ((), ())
    assert found.score == found.nothing > 0.99


def test_a_long_dialogue_is_read_in_stretches(
    reader: Reader, long_chat: Dialogue, encoder: LetterEncoder
) -> None:
    units, queries = reader.units(long_chat, encoder), reader.query_vectors(["line 7"], encoder)
    (whole,) = reader.predict(units, queries)
    # stretches of 16 from 0, 8, …, 34: the last ends with the dialogue, and a unit has its
    # logit from the one whose middle is nearest
    starts = [0, 8, 16, 24, 34]
    parts = [reader.predict(units.part(start, start + 16), queries)[0] for start in starts]
    least = min(part.nothing for part in parts)
    assert whole.nothing == pytest.approx(least)
    for unit, number in ((0, 0), (11, 0), (12, 1), (30, 3), (49, 4)):
        part = parts[number]
        expected = part.probabilities[unit - starts[number]] * (1 - part.nothing) / (1 - least)
        assert whole.probabilities[unit].item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 24, 25, 31, 33, 100])
def test_every_length_has_a_probability_for_each_unit(
    reader: Reader, encoder: LetterEncoder, length: int
) -> None:
    chat = Dialogue.of([("a", f"{n} words") for n in range(length)])
    (found,) = reader.predict(reader.units(chat, encoder), reader.query_vectors(["9"], encoder))
    assert found.probabilities.shape == (length,)
    assert bool((found.probabilities > 0).all() and (found.probabilities < 1).all())


def test_no_query_and_no_line(reader: Reader, chat: Dialogue, encoder: LetterEncoder) -> None:
    assert reader.predict(reader.units(chat, encoder), torch.zeros(0, WIDTH)) == []
    (found,) = reader.predict(
        reader.units(Dialogue("d", ()), encoder), reader.query_vectors(["x"], encoder)
    )
    assert (found.utterance_ids, found.nothing, found.score) == ((), 1.0, 1.0)


def test_a_batch_of_queries_says_the_same_as_each_alone(
    reader: Reader, chat: Dialogue, encoder: LetterEncoder
) -> None:
    units = reader.units(chat, encoder)
    queries = reader.query_vectors([f"query {n}" for n in range(70)], encoder)
    together = reader.predict(units, queries)
    for number in (0, 63, 64, 69):
        (alone,) = reader.predict(units, queries[number : number + 1])
        assert torch.allclose(together[number].probabilities, alone.probabilities, atol=1e-5)


def test_another_encoder_is_refused(reader: Reader, chat: Dialogue, encoder: LetterEncoder) -> None:
    units, queries = reader.units(chat, encoder), reader.query_vectors(["x"], encoder)
    with pytest.raises(ModelError, match="another encoder than letters"):
        reader.predict(dataclasses.replace(units, encoder="else"), queries)
    encoder.weights_digest = "else"
    with pytest.raises(ModelError, match="letters: is another encoder"):
        reader.units(chat, encoder)
    with pytest.raises(ModelError, match="another encoder"):
        reader.query_vectors(["x"], encoder)
    with pytest.raises(ValueError, match="NaN"):
        reader.predict(units, torch.full((1, WIDTH), torch.nan))


def test_the_seed_decides_the_weights(encoder: LetterEncoder, background: Background) -> None:
    one, same, other = (Reader.untrained(encoder, background, seed=n) for n in (1, 1, 2))
    assert torch.equal(one.networks[0].features.weight, same.networks[0].features.weight)
    assert not torch.equal(one.networks[0].features.weight, other.networks[0].features.weight)


# -- on disk ---------------------------------------------------------------------------------------


def test_a_saved_reader_says_the_same(
    reader: Reader, chat: Dialogue, encoder: LetterEncoder, tmp_path: Path
) -> None:
    reader.settings = dataclasses.replace(reader.settings, scale=0.7, notes={"seeds": [1]})
    # the background is kept in half precision
    reader.background = Background(
        reader.background.lines.half().float(), reader.background.queries.half().float()
    )
    reader.save(tmp_path / "r")
    again = Reader.load(tmp_path / "r")
    assert again.settings == reader.settings
    units, queries = reader.units(chat, encoder), reader.query_vectors(["soup"], encoder)
    (one,), (two,) = reader.predict(units, queries), again.predict(units, queries)
    assert torch.equal(one.probabilities, two.probabilities)
    assert (one.nothing, one.score, one.utterance_ids) == (
        two.nothing,
        two.score,
        two.utterance_ids,
    )
    again.save(tmp_path / "s")
    for path in (tmp_path / "r").iterdir():
        assert path.read_bytes() == (tmp_path / "s" / path.name).read_bytes()


def _saved(reader: Reader, folder: Path) -> Path:
    reader.save(folder)
    (folder / CHECKSUMS_FILE).unlink()
    return folder


def _changed(folder: Path, **settings: object) -> None:
    path = folder / "reader.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | settings), encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"form": FORM + 1}, f"not of form {FORM}"),
        ({"form": FORM - 1}, r"reader\.json: is of form 1, which an earlier .* the reader again"),
        ({"form": True}, f"not of form {FORM}"),
        ({"surprise": 1}, "has 'surprise'"),
        ({"shape": {"width": 10**6}}, "width is 1000000"),
        ({"shape": [1]}, "cannot be read"),
        ({"shape": {"width": 48}}, "other weights than reader.json says"),
        ({"num_networks": 10**9}, "num_networks is 1000000000"),
        ({"num_networks": 1}, "other weights"),
        ({"scale": 0}, "scale of logits is not above 0"),
        ({"scale": "1"}, "scale is '1'"),
        ({"stretch": 10**9}, "stretch is 1000000000"),
        ({"overlap": 15}, "overlap is 15"),
        ({"encoder": None}, "encoder is None"),
        ({"notes": []}, "notes are no object"),
    ],
)
def test_foreign_settings_are_refused(
    reader: Reader, tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    folder = _saved(reader, tmp_path / "r")
    _changed(folder, **settings)
    with pytest.raises(ModelError, match=said):
        Reader.load(folder)


def test_numbers_that_json_does_not_have_are_refused(reader: Reader, tmp_path: Path) -> None:
    folder = _saved(reader, tmp_path / "r")
    path = folder / "reader.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"shift": 0.0', '"shift": NaN', 1),
        encoding="utf-8",
    )
    with pytest.raises(ModelError, match="finite number"):
        Reader.load(folder)


def test_foreign_weights_are_refused(reader: Reader, tmp_path: Path) -> None:
    folder = _saved(reader, tmp_path / "r")
    path = folder / "reader.safetensors"
    whole = load_file(path)
    first = next(name for name in whole if name.endswith("features.weight"))
    changes = {
        "NaN or infinite": {first: torch.full_like(whole[first], torch.nan)},
        "background holds NaN": {
            "background.lines": torch.full_like(whole["background.lines"], torch.inf)
        },
        "no floats": {first: torch.ones(3, dtype=torch.int64)},
        "other weights": {first: torch.ones(3)},
        "does not fit together": {"background.queries": torch.ones(2, 4, 5)},
        "Unexpected key": {"more": torch.ones(1)},
    }
    for said, change in changes.items():
        save_file(whole | change, path)
        with pytest.raises(ModelError, match=said):
            Reader.load(folder)
    save_file({name: value for name, value in whole.items() if name != first}, path)
    with pytest.raises(ModelError, match="Missing key"):
        Reader.load(folder)
    save_file({name: value for name, value in whole.items() if name[:4] != "back"}, path)
    with pytest.raises(ModelError, match=r"background\.lines"):
        Reader.load(folder)
    path.write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match="cannot be read"):
        Reader.load(folder)


def test_every_torn_file_is_one_sentence(reader: Reader, tmp_path: Path) -> None:
    folder = _saved(reader, tmp_path / "r")
    for name in ("reader.json", "reader.safetensors"):
        path = folder / name
        whole = path.read_bytes()
        for length in (0, 1, 7, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:length])
            with pytest.raises(ModelError, match="again"):
                Reader.load(folder)
        path.write_bytes(whole)
    assert Reader.load(folder).settings == reader.settings


def test_a_changed_file_is_told_by_its_checksum(reader: Reader, tmp_path: Path) -> None:
    reader.save(tmp_path / "r")
    _changed(tmp_path / "r", scale=2.0)
    with pytest.raises(ModelError, match="is not what was written"):
        Reader.load(tmp_path / "r")
    with pytest.raises(ModelError, match=r"holds no reader\.json"):
        Reader.load(tmp_path / "nowhere")


def test_networks_of_another_shape_are_refused(reader: Reader, background: Background) -> None:
    settings = ReaderSettings("e", "1", shape=NetworkShape(width=48), num_networks=2)
    with pytest.raises(ValueError, match="2 networks of"):
        Reader(reader.networks, background, settings)


def test_what_is_kept_of_a_dialogue_changes_no_answer(
    reader: Reader, chat: Dialogue, long_chat: Dialogue, encoder: LetterEncoder
) -> None:
    queries = reader.query_vectors(["soup", "train", "line 7"], encoder)
    of_chat, of_other = reader.units(chat, encoder), reader.units(long_chat, encoder).part(0, 16)
    # in turn, so that what was kept of one is there when the other is asked
    for query in queries.split(1):
        for units in (of_chat, of_chat, of_other):
            (found,) = reader.predict(units, query)
            fresh = Reader(reader.networks, reader.background, reader.settings)
            (expected,) = fresh.predict(units, query)
            assert torch.equal(found.probabilities, expected.probabilities)
            assert found.score == expected.score
