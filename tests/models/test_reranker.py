"""Rerankers of sentence-transformers as teachers, against its own `predict` on single pairs as the oracle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification
from transformers.utils import is_torchvision_available

from cprd_pipeline.errors import MissingDependencyError, ModelError, SettingsError
from cprd_pipeline.models.reranker import RerankerTeacher
from cprd_pipeline.models.reranker_folder import is_reranker
from cprd_pipeline.models.teacher_choice import TeacherChoice
from cprd_pipeline.models.teachers import load_teacher, teacher_fingerprint
from tests.models.tiny_reranker import LONGEST_PAIR, OWN_PROMPT, WORDS, headed_folder, reranker_folder
from tests.pipeline.tiny_models import word_tokenizer

ADAPTER = "cprd_pipeline.models.reranker:RerankerTeacher"
CPU = torch.device("cpu")
CAPTIONS = [
    "a dog",
    "the red house",
    "a small cat runs beside the tree",
    "man runs",
    "a man beside a red tree beside a small red house",
    "the dog runs beside the cat",
    "dog",
]
# Measured: 6e-7 here (LLaVA) and 1e-6 for Qwen3-VL, where the scores of the pairs spread by 0.2 to 0.4.
TOLERANCE = 3e-6


def pictures(count: int = 3) -> list[Image.Image]:
    """Noise of several sizes."""
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (40, 36 + 5 * number, 3), dtype=np.uint8)) for number in range(count)]


PICTURES = pictures()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generative reranker that scores by yes against no."""
    pytest.importorskip("sentence_transformers")
    return reranker_folder(tmp_path_factory.mktemp("rerankers"))


@pytest.fixture(scope="module")
def teacher(folder: Path) -> RerankerTeacher:
    """The adapter around it, in float32."""
    return RerankerTeacher.load(folder, CPU, torch.float32)


@pytest.fixture(scope="module")
def plain(teacher: RerankerTeacher) -> dict[str, torch.Tensor]:
    """Scores of all pairs by plain calls, one pair each: float32 [pictures, captions] for each direction."""
    return {
        direction: torch.stack([torch.cat([predicted(teacher, direction, image, text) for text in CAPTIONS]) for image in PICTURES])
        for direction in ("i2t", "t2i")
    }


def predicted(teacher: RerankerTeacher, direction: str, image: Image.Image, caption: str, **options: object) -> torch.Tensor:
    """What sentence-transformers says of one pair, [1]."""
    pair = (image, caption) if direction == "i2t" else (caption, image)
    return teacher.model.predict([pair], activation_fn=torch.nn.Identity(), convert_to_tensor=True, **options)


def scores(teacher: RerankerTeacher, image: Image.Image, captions: list[str]) -> torch.Tensor:
    """Of one picture with captions."""
    return teacher.score(teacher.encode_images([image])[0], teacher.encode_texts(captions))


def changed_copy(folder: Path, target: Path, file: str, **changes: object) -> Path:
    """The folder with other values in one of its JSON files."""
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**content, **changes}))
    return target


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_scores_equal_plain_calls(teacher: RerankerTeacher, plain: dict[str, torch.Tensor], direction: str) -> None:
    """All pictures with all captions in one go, the query first: raw logits, float32, in the order given."""
    facing = teacher.facing(direction)
    texts = facing.encode_texts(CAPTIONS)
    found = facing.score_groups([(image, texts) for image in facing.encode_images(PICTURES)])
    assert found.dtype == torch.float32
    assert plain[direction].std() > 0.1
    torch.testing.assert_close(found, plain[direction].flatten(), rtol=0, atol=TOLERANCE)


def test_what_must_differ_differs(plain: dict[str, torch.Tensor], teacher: RerankerTeacher) -> None:
    """The direction of every pair, a mirrored picture, another caption, another order of the same words."""
    assert (plain["i2t"] - plain["t2i"]).abs().min() > 1e-3
    first = scores(teacher, PICTURES[0], CAPTIONS)
    assert (scores(teacher, ImageOps.mirror(PICTURES[0]), CAPTIONS) - first).abs().min() > 1e-3
    assert len(first.unique()) == len(CAPTIONS)
    turned = scores(teacher, PICTURES[0], ["the red house", "house red the"])
    assert (turned[0] - turned[1]).abs() > 1e-3


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_company_does_not_matter(teacher: RerankerTeacher, plain: dict[str, torch.Tensor], data: st.DataObject) -> None:
    """Any captions of any pictures together, also more than one pass takes, score as each pair alone."""
    direction = data.draw(st.sampled_from(["i2t", "t2i"]))
    rows = st.lists(st.integers(0, len(CAPTIONS) - 1), min_size=1, max_size=20)
    groups = data.draw(st.lists(st.tuples(st.integers(0, len(PICTURES) - 1), rows), min_size=1, max_size=4))
    facing = teacher.facing(direction)
    texts = facing.encode_texts(CAPTIONS)
    found = facing.score_groups([(PICTURES[image], [texts[row] for row in chosen]) for image, chosen in groups])
    expected = torch.cat([plain[direction][image, chosen] for image, chosen in groups])
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_facing_shares_the_model(teacher: RerankerTeacher) -> None:
    """Two directions, one set of weights; the first teacher stays as it was."""
    other = teacher.facing("t2i")
    assert other.model is teacher.model
    assert (other.direction, teacher.direction) == ("t2i", "i2t")
    assert RerankerTeacher.roles == "each"


def test_what_it_is_told_counts(folder: Path, teacher: RerankerTeacher) -> None:
    """The model's own prompt, another one, and none, each as in a plain call."""
    found = []
    for prompt in (OWN_PROMPT, "a house", ""):
        told = RerankerTeacher.load(folder, CPU, torch.float32, prompt=prompt)
        found.append(scores(told, PICTURES[0], CAPTIONS[:1]))
        torch.testing.assert_close(
            found[-1], predicted(told, "i2t", PICTURES[0], CAPTIONS[0], prompt=prompt), rtol=0, atol=TOLERANCE
        )
    assert torch.equal(found[0], scores(teacher, PICTURES[0], CAPTIONS[:1]))
    assert len(torch.cat(found).unique()) == 3


@pytest.mark.parametrize("labels", [1, 2])
def test_a_head_of_its_own(tmp_path: Path, labels: int) -> None:
    """A linear head on a state works as well; one with two labels is refused."""
    pytest.importorskip("sentence_transformers")
    folder = headed_folder(tmp_path, labels)
    if labels == 2:
        with pytest.raises(ModelError, match="gives 2 labels; expected one: the score of a pair"):
            RerankerTeacher.load(folder, CPU, torch.float32)
        return
    headed = RerankerTeacher.load(folder, CPU, torch.float32)
    expected = torch.cat([predicted(headed, "i2t", PICTURES[0], caption) for caption in CAPTIONS])
    assert expected.std() > 1e-3
    torch.testing.assert_close(scores(headed, PICTURES[0], CAPTIONS), expected, rtol=0, atol=TOLERANCE)


def test_the_head_stays_float32(folder: Path, teacher: RerankerTeacher) -> None:
    """Half precision moves the scores a little, and does not round them to its own few values."""
    half = RerankerTeacher.load(folder, CPU, torch.bfloat16)
    found = torch.cat([scores(half, picture, CAPTIONS) for picture in PICTURES])
    exact = torch.cat([scores(teacher, picture, CAPTIONS) for picture in PICTURES])
    assert half.model.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert (found != found.bfloat16().float()).all()
    assert 1e-5 < (found - exact).abs().max() < 0.1


def test_double_precision(folder: Path, plain: dict[str, torch.Tensor]) -> None:
    """Weights and activations are float64 when asked for; the score stays float32."""
    double = RerankerTeacher.load(folder, CPU, torch.float64)
    assert {parameter.dtype for parameter in double.model.parameters()} == {torch.float64}
    torch.testing.assert_close(scores(double, PICTURES[1], CAPTIONS), plain["i2t"][1], rtol=0, atol=TOLERANCE)


def test_long_captions_are_cut_and_counted(folder: Path) -> None:
    """The score is that of the words within the limit; the count is that of all."""
    short = RerankerTeacher.load(folder, CPU, torch.float32, max_text_tokens=3)
    cut, kept = short.encode_texts(["The  red house runs", "a dog runs"])
    assert (cut.text, short.text_tokens(cut), short.max_text_tokens) == ("The  red house", 4, 3)
    assert (kept.text, short.text_tokens(kept)) == ("a dog runs", 3)
    torch.testing.assert_close(
        short.score(PICTURES[0], [cut]), predicted(short, "i2t", PICTURES[0], "the red house"), rtol=0, atol=TOLERANCE
    )


def test_a_pair_beyond_the_limit_is_refused(folder: Path, teacher: RerankerTeacher) -> None:
    """Image, prompt and caption together; sentence-transformers would cut the end of the sequence in silence."""
    message = (
        r"an image of 36 x 40 and a caption of 60 tokens are \d+ tokens together; expected at most 64, this teacher's own limit; "
        "lower teacher.max_text_tokens"
    )
    with pytest.raises(ModelError, match=message):
        scores(teacher, PICTURES[0], ["dog " * 60])
    with pytest.raises(SettingsError, match="max_text_tokens is 65; expected at most 64"):
        RerankerTeacher.facts(folder, max_text_tokens=LONGEST_PAIR + 1)


def test_a_caption_is_never_opened_as_a_picture(teacher: RerankerTeacher, tmp_path: Path) -> None:
    """A caption that is the path of a picture scores as the unknown word it is."""
    PICTURES[0].save(tmp_path / "a.png")
    paths = scores(teacher, PICTURES[0], [str(tmp_path / "a.png"), "no_such.png"])
    torch.testing.assert_close(paths[0], paths[1], rtol=0, atol=1e-6)


def test_captions_without_tokens_are_refused(teacher: RerankerTeacher) -> None:
    """The message holds the caption."""
    with pytest.raises(ModelError, match=r"the tokenizer leaves nothing of the caption ' '; expected at least one token"):
        teacher.encode_texts(["a dog", " "])


def test_the_prompt_spelled_out_is_the_same_teacher(folder: Path) -> None:
    """Nothing asked for and the model's own values make one fingerprint; other values another."""

    def fingerprint(**changes: object) -> str:
        return teacher_fingerprint(TeacherChoice(model=str(folder), adapter=ADAPTER, **changes))

    assert fingerprint() == fingerprint(prompt=OWN_PROMPT, max_text_tokens=LONGEST_PAIR)
    assert len({fingerprint(), fingerprint(prompt=""), fingerprint(max_text_tokens=9), fingerprint(dtype="bfloat16")}) == 4


@pytest.mark.parametrize(
    ("file", "changes", "same"),
    [
        ("config_sentence_transformers.json", {"__version__": {}, "activation_fn": "torch.nn.Identity"}, True),
        ("config_sentence_transformers.json", {"prompts": {"pairs": "a house"}}, False),
        ("1_LogitScore/config.json", {"false_token_id": None}, False),
        ("sentence_bert_config.json", {"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}}, False),
    ],
    ids=["version", "prompt", "verdict", "rendering"],
)
def test_files_of_the_folder_are_part_of_the_teacher(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, object], same: bool
) -> None:
    """Also those that other models do not have, as long as they move scores."""
    fingerprints = [
        teacher_fingerprint(TeacherChoice(model=str(model), adapter=ADAPTER))
        for model in (folder, changed_copy(folder, tmp_path / "changed", file, **changes))
    ]
    assert (fingerprints[0] == fingerprints[1]) == same


def test_the_chat_template_is_part_of_the_teacher(folder: Path, tmp_path: Path) -> None:
    """It is no JSON, and decides what the model reads."""
    shutil.copytree(folder, tmp_path / "changed")
    template = tmp_path / "changed" / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "system"))
    before, after = (RerankerTeacher.facts(model) for model in (folder, tmp_path / "changed"))
    assert before["parts"] != after["parts"]


def test_what_the_folder_of_a_reranker_is(folder: Path, tmp_path: Path) -> None:
    """Written by sentence-transformers, and as a CrossEncoder."""
    assert is_reranker(folder)
    assert not is_reranker(folder.parent / "plain")
    other = changed_copy(folder, tmp_path / "other", "config_sentence_transformers.json", model_type="SentenceTransformer")
    assert not is_reranker(other)
    with pytest.raises(ModelError, match=r"no CrossEncoder in its config_sentence_transformers\.json; expected a folder that"):
        RerankerTeacher.load(other, CPU, torch.float32)
    (other / "config_sentence_transformers.json").write_text("{")
    with pytest.raises(ModelError, match=r"config_sentence_transformers\.json: cannot be read \(Expecting"):
        is_reranker(other)


def test_a_text_reranker_is_refused(tmp_path: Path) -> None:
    """It would score nothing of the picture."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 1}
    tokenizer = word_tokenizer(WORDS)
    for part in (BertForSequenceClassification(BertConfig(**shape, vocab_size=len(tokenizer))), tokenizer):
        part.save_pretrained(tmp_path / "plain")
    sentence_transformers.CrossEncoder(str(tmp_path / "plain"), device="cpu").save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ModelError, match=r"saved: takes text; expected a reranker that takes images"):
        RerankerTeacher.load(tmp_path / "saved", CPU, torch.float32)


def test_missing_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    """Transformers would fill them with random numbers."""
    shutil.copytree(folder, tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    name = next(name for name in weights if "lm_head" in name)
    count = weights.pop(name).numel()
    save_file(weights, tmp_path / "saved" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"saved: {count} of \d+ weights are missing; expected all of them"):
        RerankerTeacher.load(tmp_path / "saved", CPU, torch.float32)


def test_a_chat_template_without_the_two_roles_is_refused(tmp_path: Path) -> None:
    """Query and document would not reach the model."""
    pytest.importorskip("sentence_transformers")
    deaf = RerankerTeacher.load(reranker_folder(tmp_path, template="assistant:"), CPU, torch.float32)
    with pytest.raises(ModelError, match=r"the teacher's processor refuses a pair \(The chat template of .*cannot carry a"):
        scores(deaf, PICTURES[0], ["a dog"])


def test_a_damaged_folder_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    """As when the configuration names a model that transformers does not know."""
    broken = changed_copy(folder, tmp_path / "broken", "config.json", model_type="no_such_model")
    with pytest.raises(ModelError, match=r"broken: cannot be loaded \(.*no_such_model"):
        RerankerTeacher.load(broken, CPU, torch.float32)
    with pytest.raises(ModelError, match=r"broken: its configuration cannot be loaded \(.*no_such_model"):
        RerankerTeacher.facts(broken)


def test_code_in_the_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    """A module that only the folder's own code defines is refused, and the code not even imported."""
    shutil.copytree(folder, tmp_path / "saved")
    modules = json.loads((tmp_path / "saved" / "modules.json").read_text())
    modules[1]["type"] = "brought_along.Verdict"
    (tmp_path / "saved" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "saved" / "brought_along.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(ModelError, match=r"saved: cannot be loaded .*brought_along\.Verdict.*not part of Sentence Transformers"):
        RerankerTeacher.load(tmp_path / "saved", CPU, torch.float32)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(is_torchvision_available(), reason="this family's processor needs torchvision, which is here")
def test_a_package_that_one_family_needs_is_named(folder: Path, tmp_path: Path) -> None:
    """Qwen-VL processors read videos with torchvision and cannot do without, even for pictures."""
    videos = {"video_processor_type": "Qwen3VLVideoProcessor"}
    needy = changed_copy(
        folder, tmp_path / "needy", "processor_config.json", processor_class="Qwen3VLProcessor", video_processor=videos
    )
    with pytest.raises(MissingDependencyError, match=r"needy: needs a package that is missing \(.*Torchvision.*; install it \("):
        RerankerTeacher.load(needy, CPU, torch.float32)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not it is installed here."""
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    message = r"sentence-transformers cannot be imported .*; pip install 'cprd-pipeline\[rerankers\]'"
    with pytest.raises(MissingDependencyError, match=message):
        RerankerTeacher.load(tmp_path, CPU, torch.float32)


def test_the_adapter_imports_without_the_package() -> None:
    """Everybody's command pays for the import of all adapters; only rerankers pay for this package."""
    code = "import sys, cprd_pipeline.models.reranker; sys.exit('sentence_transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_settings_reach_it(folder: Path) -> None:
    """By its name in `teacher.adapter`."""
    chosen = load_teacher(TeacherChoice(model=str(folder), adapter=ADAPTER, prompt="a house", max_text_tokens=7), CPU)
    assert isinstance(chosen, RerankerTeacher)
    assert (chosen.prompt, chosen.max_text_tokens, chosen.max_pair_tokens) == ("a house", 7, LONGEST_PAIR)
