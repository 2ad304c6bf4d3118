"""What compare_runs.py runs: short cases that between them go through every part of a run."""

from typing import NamedTuple

MODEL = "evr1/assets/demo_model"
RUN = ("metrics.jsonl", "rollouts.jsonl", "export/*")
CHECKED = (*RUN, "log.txt")  # with canaries, whose lines are compared

# Fields of short runs on few rows; what stands later wins.
SHORT = """num_steps=3 rollout.prompts=8 rollout.n=4 rollout.slots=32 eval.prompts=16
    eval.every_steps=2
    canaries=False rewards.timeout_s=60 train.microbatch_tokens=200 log.tensorboard=False
    log.report=False checkpoint.export_dtype=float32 data.generate=False data.media_dir={data}
    data.shards={out}/shards data.eval={data}/heldout.jsonl"""
ALL = f"{SHORT} data.train={{data}}/train.jsonl"
FEW = f"{SHORT} data.train={{data}}/few.jsonl mix.overlong=truncate"  # rows that come again
KL = "algorithm.old_logprobs=recompute algorithm.kl_coef=0.05 algorithm.kl_target=0.01"
DEMO = """num_steps=6 rollout.prompts=8 eval.prompts=16 eval.every_steps=3 rewards.timeout_s=60
    train.microbatch_tokens=592 checkpoint.every_steps=3"""
MIXED = f"""{FEW} num_steps=4 canaries=True optim.freeze=("vision/.*",) algorithm.advantage=gae
    algorithm.old_logprobs=recompute critic.decay=0.95 critic.warmup_steps=1 dynamic.enabled=True
    mix.enabled=True mix.treatment=luffy mix.accuracy_threshold=0.9 replay.enabled=True"""
LORA = f"""{ALL} {KL} canaries=True train.microbatch_tokens=400 lora.rank=8 lora.dropout=0.1
    lora.export_adapter=True algorithm.kl_placement=reward algorithm.kl_controller=adaptive
    algorithm.kl_horizon=100 algorithm.updates_per_rollout=2 algorithm.epochs_per_rollout=2
    algorithm.reference_refresh_steps=2"""
JOINT = f"""{SHORT} mesh.data=2 mesh.fsdp=4 train.microbatch_tokens=2000
    data.sources=(("{{data}}/train_video.jsonl",0.5),("{{data}}/train_image.jsonl",0.5))"""
REMAX = f"""{ALL} algorithm.advantage=remax algorithm.policy=cispo algorithm.entropy_coef=0.01
    algorithm.temporal_bonus=0.3 algorithm.temporal_margin=0.8 data.source=realtime_only
    rewards.terms=(("overlong_penalty",0.5),) data.thinking=True data.max_prompt_tokens=256
    shapes.prompt_tokens=() train.microbatch_tokens=512 optim.weight_decay=0.1
    optim.warmup_steps=1"""
BF16 = f"""{ALL} {KL} train.dtype=bfloat16 train.remat=full algorithm.policy=gspo
    algorithm.advantage=ema_grpo algorithm.correction=token_tis algorithm.kl_estimator=k2
    algorithm.reference_decay=0.9 algorithm.updates_per_rollout=2"""
CRITIC = f"""{FEW} algorithm.advantage=gae critic.trunk=shared algorithm.old_logprobs=sampler
    algorithm.policy=sapo algorithm.aggregation=fixed_length data.curriculum=easy_first"""
RESUME = f"""{FEW} {KL} dynamic.enabled=True dynamic.draw_prompts=12 mix.enabled=True
    mix.accuracy_threshold=0.5 mix.treatment=sft replay.enabled=True optim.schedule=cosine
    algorithm.advantage=reinforce_plus_plus_baseline algorithm.kl_controller=adaptive
    checkpoint.every_steps=2"""
JUDGE = f"""{ALL} num_steps=2 rewards.judge.backend=sampler rewards.judge.model={MODEL}
    rewards.judge.types=("ocr","multiple_choice") rewards.judge.max_tokens=16
    rewards.judge.max_prompt_tokens=1024 rewards.judge.slots=8 rewards.max_failed_share=0.95"""
BUDGETS = """--media_dir {data} --fps 4 --max_frames 8 --min_pixels 1024 --max_pixels 2304
    --image_min_pixels 1024 --image_max_pixels 2304"""
GENERATE = f"""tools/generate.py --model {MODEL} --rows {{data}}/few.jsonl --out {{out}}/out.jsonl
    {BUDGETS} --n 4 --temperature 1 --max_tokens 24 --slots 4 --window 8"""
SCORE = f"""tools/score_completions.py --model {MODEL} --rows {{runs}}/generate/out.jsonl
    --out {{out}}/out.jsonl {BUDGETS}"""
REWARDS = "-m evr1.rewards --rows {runs}/generate/out.jsonl --out {out}/rewards.jsonl"
FILTER = """tools/filter_by_pass_rate.py --run {runs}/demo --model {runs}/demo/export --k 4
    --rows {data}/few.jsonl --media_dir {data} --out {out} --slots 4 --score_timeout_s 60"""
CONVERT = "tools/convert_checkpoint.py --from_hf {runs}/demo/export --to_orbax {out}/orbax"
BACK = "tools/convert_checkpoint.py --from_orbax {out}/orbax --to_hf {out}/hf"


def train(fields: str, config: str = "demo") -> str:
    """The command of a training run with these fields of the config."""
    given = " ".join(f"--config.{field}" for field in fields.split())
    return f"-m evr1.main --config=configs/{config}.py --config.workdir={{out}} {given}"


class Case(NamedTuple):
    """Commands, and which of the files that they write are compared.

    Attributes:
        commands: of the interpreter, in the root of a tree. {out} is the folder of the case, {runs}
            that of all cases, {data} that of the rows.
        compared: patterns of files in {out}.
        shows: metrics that must be above 0 in some step, or the case tests nothing.
        start: case whose output {out} begins with.
        after: case whose output is read.
        copy: a file in {out} and one in {runs} of which it must be a copy.
        devices: how many are simulated.
    """

    commands: tuple[str, ...]
    compared: tuple[str, ...] = RUN
    shows: tuple[str, ...] = ()
    start: str = ""
    after: str = ""
    copy: tuple[str, str] | None = None
    devices: int = 1


CASES = {
    "demo": Case((train(DEMO),), (*CHECKED, "data/*.jsonl")),
    "mixed": Case((train(MIXED),), CHECKED, ("mix/replaced", "mix/replayed", "critic/loss")),
    "lora": Case(
        (train(LORA),), (*CHECKED, "adapter/*"), ("policy/kl_ref", "policy/clip_low_share")
    ),
    "joint": Case((train(JOINT, "demo_joint"),), shows=("rollout/share/image",), devices=8),
    "remax": Case((train(REMAX),), shows=("temporal/bonus_share",)),
    "bf16": Case((train(BF16),), shows=("policy/kl_ref", "correction/weight")),
    "critic": Case((train(CRITIC),), shows=("critic/loss",)),
    "resume": Case(
        (train(f"{RESUME} num_steps=2"), train(f"{RESUME} num_steps=4")),
        shows=("dynamic/carried", "mix/replaced", "mix/replayed"),
    ),
    "judge": Case((train(JUDGE),), shows=("reward/error_share",)),
    "generate": Case((GENERATE,), ("out.jsonl",)),
    "score": Case((SCORE, REWARDS), ("out.jsonl", "rewards.jsonl"), after="generate"),
    "filter": Case((FILTER,), ("[kft]*.jsonl", "summary.json"), after="demo"),
    "convert": Case(
        (CONVERT, BACK),
        ("hf/*",),
        after="demo",
        copy=("hf/model.safetensors", "demo/export/model.safetensors"),
    ),
    "export": Case((train(f"{DEMO} checkpoint.export_dtype=float32"),), start="demo"),
}
