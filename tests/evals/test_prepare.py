"""What a folder holds of a benchmark, and what it lacks."""

import dataclasses
import hashlib
import json
import pathlib
import shutil

import miniatures
import pytest
from miniatures import scenes

from evr1.evals import prepare
from evr1.evals.__main__ import main
from evr1.evals.tasks import TASKS
from evr1.evals.unpack import unpack

OPTIONS = "\n(A) Ann\n(B) Bob"


def lvbench(folder, videos=("a", "b")):
    """Writes two videos with three questions, and returns the task that expects these."""
    questions = {"a": (("1", "reasoning"), ("2", "summarization")), "b": (("3", "reasoning"),)}
    lines = [
        json.dumps(
            {
                "key": key,
                "type": "tv",
                "qa": [
                    {
                        "uid": uid,
                        "question": f"Who?{OPTIONS}",
                        "answer": "A",
                        "question_type": [label],
                    }
                    for uid, label in rows
                ],
            }
        )
        for key, rows in questions.items()
    ]
    (folder / "video_info.meta.jsonl").write_text("\n".join(lines))
    (folder / "videos").mkdir()
    for name in videos:
        (folder / "videos" / f"{name}.mp4").write_bytes(b"x" * 1500)
    task, counts = TASKS["lvbench"], {"capability": {"reasoning": 2, "summarization": 1}}
    return dataclasses.replace(task, source=dataclasses.replace(task.source, n=3, counts=counts))


def test_a_complete_folder(tmp_path):
    stock = prepare.take_stock(lvbench(tmp_path), tmp_path)
    assert stock.is_complete
    assert prepare.report(stock) == [
        "lvbench: 3 of 3 questions",
        f"annotations: 1 file, {(tmp_path / 'video_info.meta.jsonl').stat().st_size} B",
        "media: 2 of 2, 2.9 KiB",
    ]


def test_the_manifest_tells_files_by_their_digest(tmp_path):
    task = lvbench(tmp_path, videos=("a",))
    written = prepare.manifest(prepare.take_stock(task, tmp_path))
    content = (tmp_path / "video_info.meta.jsonl").read_bytes()
    assert written["annotations"] == {
        "video_info.meta.jsonl": {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    }
    assert (written["n"], written["n_expected"], written["n_runnable"]) == (3, 3, 2)
    assert written["media"]["missing"] == {"videos/b.mp4": "is not there"}
    assert written["counts"]["capability"] == {"reasoning": 2, "summarization": 1}
    assert written == prepare.manifest(prepare.take_stock(task, tmp_path))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "is not there"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
    ],
)
def test_a_missing_video_is_named_with_its_questions(tmp_path, content, fault):
    task = lvbench(tmp_path, videos=("b",))
    if content is not None:
        (tmp_path / "videos" / "a.mp4").write_bytes(content)
    (tmp_path / "part_1.zip").write_bytes(b"")
    stock = prepare.take_stock(task, tmp_path)
    assert prepare.report(stock)[2:] == [
        "media: 1 of 2, 1.5 KiB",
        f"missing: videos/a.mp4 {fault}; 2 questions ask for it",
        "missing: 1 file in all, so 2 questions cannot be asked",
        "not unpacked? 1 archive: part_1.zip",
    ]


def test_a_folder_of_images_is_a_video_where_the_task_says_so(tmp_path):
    miniatures.write("mvbench", tmp_path)
    name = "video/tvqa/frames_fps3_hq/0"

    def fault():
        return prepare.take_stock(TASKS["mvbench"], tmp_path).media.missing.get(name)

    stock = prepare.take_stock(TASKS["mvbench"], tmp_path)
    files = sorted((tmp_path / name).iterdir())
    assert [file.name for file in files[:2]] == ["00001.jpg", "00002.jpg"]
    assert stock.media.sizes[name] == sum(file.stat().st_size for file in files)
    assert fault() is None
    for file in files:
        file.unlink()
    assert fault() == ("is empty", 1)
    (tmp_path / name).rmdir()
    assert fault() == ("is not there", 1)
    (tmp_path / name).write_bytes(b"x")
    assert fault() == ("is no folder of images", 1)


def test_a_folder_is_no_file(tmp_path):
    task = lvbench(tmp_path, videos=("b",))
    (tmp_path / "videos" / "a.mp4").mkdir()
    (tmp_path / "videos" / "a.mp4" / "1.jpg").write_bytes(b"xy")
    stock = prepare.take_stock(task, tmp_path)
    assert stock.media.missing == {"videos/a.mp4": ("is a folder, but no file", 2)}


def test_many_missing_files_are_counted_and_all_in_the_manifest(tmp_path):
    rows = [{"uid": i, "question": f"?{OPTIONS}", "answer": "A", "question_type": []} for i in "1"]
    lines = [json.dumps({"key": f"v{i:02}", "qa": rows}) for i in range(50)]
    (tmp_path / "video_info.meta.jsonl").write_text("\n".join(lines))
    stock = prepare.take_stock(TASKS["lvbench"], tmp_path)
    lines = prepare.report(stock)
    assert sum(line.startswith("missing: videos/") for line in lines) == 20
    assert lines[-2:] == [
        "missing: 30 more files",
        "missing: 50 files in all, so 50 questions cannot be asked",
    ]
    assert len(prepare.manifest(stock)["media"]["missing"]) == 50
    assert list(stock.wrong) == [
        "ids: 1 stand more than once, the first is 1",
        "questions: 50, a complete copy has 1549",
    ]


def test_wrong_counts_are_told_by_tag_and_label(tmp_path):
    task = lvbench(tmp_path)
    counts = {"capability": {"reasoning": 3, "event understanding": 1}}
    source = dataclasses.replace(task.source, n=4, counts=counts)
    stock = prepare.take_stock(dataclasses.replace(task, source=source), tmp_path)
    assert list(stock.wrong) == [
        "questions: 3, a complete copy has 4",
        "capability 'reasoning': 2, a complete copy has 3",
        "capability 'event understanding': 0, a complete copy has 1",
    ]


@pytest.mark.parametrize(
    ("task", "is_there", "missing", "unrunnable"),
    [
        ("longvideobench", False, [], 0),
        ("longvideobench_sub", True, [], 0),
        ("longvideobench_sub", False, ["subtitles/v1_en.json"], 2),
    ],
)
def test_subtitles_are_looked_for_where_the_task_has_them(
    tmp_path, task, is_there, missing, unrunnable
):
    miniatures.write(task, tmp_path)
    if not is_there:
        (tmp_path / "subtitles" / "v1_en.json").unlink()
    stock = prepare.take_stock(TASKS[task], tmp_path)
    assert list(stock.subtitles.missing) == missing
    assert stock.unrunnable == unrunnable


def test_a_benchmark_with_prompts_without_subtitles_can_do_without_them(tmp_path):
    miniatures.write("video_mme", tmp_path)
    shutil.rmtree(tmp_path / "subtitle")
    stock = prepare.take_stock(TASKS["video_mme"], tmp_path)
    assert list(stock.subtitles.missing) == [f"subtitle/mini_vid{i}.srt" for i in (0, 1)]
    assert stock.unrunnable == 0
    assert prepare.report(stock)[-1] == "prompts without subtitles can be asked"


def test_subtitles_that_were_unpacked_in_part_are_missed(tmp_path):
    """One of the two videos has some, as 744 of 900 have: fewer are told by their number."""
    miniatures.write("video_mme", tmp_path)
    before = prepare.take_stock(TASKS["video_mme"], tmp_path)
    assert before.counts["subtitles"] == {"no": 3, "yes": 3}
    (tmp_path / "subtitle" / "mini_vid0.srt").unlink()
    stock = prepare.take_stock(TASKS["video_mme"], tmp_path)
    assert "subtitles 'yes': 0, a complete copy has 2232" in stock.wrong


def test_subtitles_whose_folder_is_not_there_are_missed(tmp_path):
    miniatures.write("video_math_qa", tmp_path)
    assert not prepare.take_stock(TASKS["video_math_qa"], tmp_path).subtitles.missing
    shutil.rmtree(tmp_path / "subtitles")
    assert prepare.take_stock(TASKS["video_math_qa"], tmp_path).subtitles.missing


def test_a_partial_folder_ends_with_status_1_unless_it_is_allowed(tmp_path, monkeypatch, capsys):
    task = lvbench(tmp_path, videos=("a",))
    monkeypatch.setitem(TASKS, "lvbench", task)
    command = ["prepare", "lvbench", "--data", str(tmp_path)]
    with pytest.raises(SystemExit, match="holds no complete lvbench") as error:
        main(command)
    assert "\n" not in str(error.value)
    main([*command, "--allow-missing"])
    out = capsys.readouterr().out
    assert out.endswith("partial: 2 of 3 questions; the score will be partial\n")
    assert json.loads((tmp_path / "manifest.json").read_text())["is_complete"] is False
    (tmp_path / "videos" / "b.mp4").write_bytes(b"x")
    main([*command, "--out", str(tmp_path / "m.json")])
    assert json.loads((tmp_path / "m.json").read_text())["is_complete"] is True


def test_a_manifest_is_no_annotation(tmp_path):
    row = {"video": "v.mp4", "caption": "a person sits.", "timestamp": [0.0, 2.0]}
    (tmp_path / "charades.json").write_text(json.dumps([row]))
    command = ["prepare", "charades_sta", "--data", str(tmp_path), "--allow-missing"]
    main(command)
    first = (tmp_path / "manifest.json").read_text()
    main(command)
    assert (tmp_path / "manifest.json").read_text() == first
    assert list(json.loads(first)["annotations"]) == ["charades.json"]


def video_mmmu(folder):
    """Writes a miniature without its images; returns the command that prepares it."""
    miniatures.write("video_mmmu", folder)
    shutil.rmtree(folder / "images")
    return ["prepare", "video_mmmu", "--data", str(folder), "--allow-missing"]


def test_media_of_annotation_files_are_written_on_request(tmp_path, capsys):
    command = video_mmmu(tmp_path)
    main(command)
    out = capsys.readouterr().out
    assert "missing: images/new_Physics_1.png is not there; 1 question asks for it" in out
    assert "2 of them stand inside the annotations; --unpack writes them" in out
    assert not (tmp_path / "images").exists()
    main([*command, "--unpack"])
    out = capsys.readouterr().out
    assert out.startswith("unpacked: 2 media written, 0 there before\n")
    assert "missing:" not in out
    images = sorted((tmp_path / "images").iterdir())
    assert [image.name for image in images] == ["new_Physics_1.png", "validation_Art_Theory_3.png"]
    assert images[0].read_bytes() == scenes.picture(3)
    images[1].write_bytes(b"cut off")
    main([*command, "--unpack"])
    assert capsys.readouterr().out.startswith("unpacked: 1 media written, 1 there before\n")
    assert images[1].read_bytes() == scenes.picture(0)


def test_a_medium_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    command = video_mmmu(tmp_path)

    def stop(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "replace", stop)
        with pytest.raises(SystemExit) as end:
            main([*command, "--unpack"])
    assert end.value.code == 130
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("images/../../x.png",), "a medium is named images/../../x.png, outside of it"),
        (("/x.png",), "a medium is named /x.png, outside of it"),
        (("images/x.png", "images/x.png"), "two different media are named images/x.png"),
    ],
)
def test_media_of_bad_names_are_refused(tmp_path, names, message):
    rows = [(name, f"{i}".encode()) for i, name in enumerate(names)]
    task = dataclasses.replace(TASKS["video_mmmu"], embedded=lambda folder: iter(rows))
    with pytest.raises(ValueError, match=message):
        unpack(task, tmp_path / "a")


def test_only_media_of_annotation_files_can_be_unpacked(tmp_path):
    miniatures.write("mvbench", tmp_path)
    with pytest.raises(SystemExit, match="the media of mvbench are files of their own"):
        main(["prepare", "mvbench", "--data", str(tmp_path), "--unpack"])
