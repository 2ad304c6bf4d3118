"""Every field that exists, with its default, unit and meaning.

Other config files start from `get_config()` here and change values; no field is born anywhere else.
Values that follow from others are worked out in `evr1.config.resolve`, so command-line overrides
always take effect. Sizes are global (never per device). Units stand in the names:
_steps _s _fps _frames _pixels _tokens _bytes.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """Returns the complete default config."""
    c = ml_collections.ConfigDict()

    c.workdir = config_dict.placeholder(str)  # everything the run writes goes here
    c.seed = 0
    c.num_steps = 200  # RL steps: one rollout batch each
    # HF directory, one of evr1 convert, or a run's checkpoint: RUN/checkpoints/STEP,
    # RUN/checkpoints/best, or RUN, the newest one.
    c.model = config_dict.placeholder(str)
    c.canaries = True  # check the whole chain on one batch before the first step
    # Directory of compiled programs, which later runs need not compile; CPUs have a folder in it
    # for each kind. Empty: evr1 in the user's cache directory. "off": none.
    # JAX_COMPILATION_CACHE_DIR wins.
    c.compile_cache = ""

    c.data = ml_collections.ConfigDict()
    # Rows: .json, .jsonl or .parquet, in EasyVideoR1's schema. An empty data.eval: none held out.
    c.data.train = config_dict.placeholder(str)
    c.data.eval = config_dict.placeholder(str)
    # Several files instead of data.train, each with its share of what is drawn, which add up to 1:
    # (("videos.jsonl", 0.7), ("images.jsonl", 0.3)).
    c.data.sources = ()
    # Our field -> theirs, where rows call them otherwise, as an object or as JSON:
    # '{"problem": "q", "answer": "info.gold", "ignore": ["thumbnail"]}'. docs/data.md has the names
    # that are known.
    c.data.columns = config_dict.placeholder(object)
    # Of rows that state none and have no options; "": every row must state one.
    c.data.problem_type = "open-ended"
    c.data.max_bad_rows_share = 0.0  # of a file's rows: so many may be bad, and are passed over
    c.data.media_dir = ""  # joined in front of relative media paths
    # Directory for media that rows hold as bytes. Empty: evr1/media in the user's cache directory.
    c.data.media_cache = ""
    # Directory written by evr1 preprocess, or its address in a bucket: s3://... or gs://...
    c.data.shards = ""
    # Directory for shards of a bucket. Empty: evr1/buckets in the user's cache directory.
    c.data.shard_cache = ""
    c.data.shard_cache_gib = 0.0  # bound on it; 0: nine tenths of what its disk has free
    # How pixels are kept in it: raw, jpeg (quality 95, 4:4:4) or lossless (WebP). Empty: as it
    # has them, raw in a new one.
    c.data.storage = ""
    c.data.generate = False  # first write the demo's clips and rows to workdir/data
    c.data.preprocess = False  # fill data.shards before the first step
    c.data.source = "prefer_preprocessed"  # or preprocessed_only, realtime_only
    # Training rows to pass over when their turn comes, which keeps the order and the position of
    # a run that goes on: problem ids, FILE:LINE as messages name a row, or files that list these.
    c.data.skip = ()
    c.data.shuffle = True  # another order in every epoch; False: file order
    # easy_first or hard_first: order by the rows' pass_rate (evr1 filter) instead.
    c.data.curriculum = ""
    c.data.video_fps = 2.0  # frames sampled per second of video
    c.data.video_max_frames = 128  # per clip
    c.data.video_min_pixels = 3136  # per frame
    c.data.video_max_pixels = 262144  # per frame
    c.data.video_total_pixels = 0  # per clip; 0: 0.9 * 128000 * 32**2, as in qwen-vl-utils
    # Who says how large frames are: qwen_vl_utils, by the three fields above; or transformers'
    # video processor, by `size` of the model's directory: hf, or hf_capped (cap_pixels_per_frame).
    c.data.video_budget = "qwen_vl_utils"
    c.data.image_min_pixels = 3136  # per image
    c.data.image_max_pixels = 1048576  # per image
    # True: ask for reasoning between think tags before the answer. True and False set the chat
    # template's variable enable_thinking where it has one; None: its own default.
    c.data.thinking = config_dict.placeholder(bool)
    # Further variables of the chat template, a JSON object: '{"reasoning_effort": "low"}'.
    c.data.template_variables = ""
    c.data.sanitize = False  # control tokens of the model in a row's text are read as text
    c.data.template = ""  # Jinja2 file that replaces the built-in task template
    c.data.max_prompt_tokens = 20000  # visual tokens included; planned from headers
    c.data.filter_overlong = True  # drop longer prompts; False: refuse the data file
    c.data.max_overlong_share = 0.1  # stop when more of the rows of a split are dropped for it
    c.data.max_failed_share = 0.01  # stop when more of the media cannot be decoded
    c.data.decode_timeout_s = 120.0  # a decoding child process is killed after this
    c.data.workers = 4  # decoding processes per host
    c.data.prefetch_batches = 2  # rollout batches to have ready

    # The few shapes that batches are padded to; empty means derived from the planned rows.
    c.shapes = ml_collections.ConfigDict()
    c.shapes.prompt_tokens = ()  # ascending prompt lengths; derived: a few that save padding
    c.shapes.vision_rows = ()  # ascending numbers of vision rows per prompt; likewise
    c.shapes.row_patches = 0  # patches per vision row; derived: those of the largest frame

    c.rollout = ml_collections.ConfigDict()
    c.rollout.prompts = 256  # prompts (groups) per RL step
    c.rollout.n = 8  # completions per prompt
    c.rollout.max_completion_tokens = 4096  # the end token included
    c.rollout.temperature = 1.0  # the update's log-probabilities are at this temperature too
    c.rollout.top_p = 1.0  # keep it: the update's log-probabilities are of the full softmax
    c.rollout.top_k = 0  # keep it, likewise
    # Groups that decode at the same time, on all hosts. 0: as many of a step's as the devices have
    # room for, by arithmetic; where they do not say how much they have, up to 64.
    c.rollout.slots = 0
    # Devices of a host that share a copy of the weights to draw with, whatever `mesh` trains on: a
    # decode step moves no weights. 0: as many as divide the heads of the keys.
    c.rollout.tensor = 0
    # Of the prompts' keys and values while completions are drawn. int8: half the memory of bfloat16
    # and half of what a decode step reads, and log-probabilities that are further from the
    # trainer's, see `sampler/*`; use it with algorithm.correction. Empty: that of train.dtype.
    c.rollout.cache_dtype = ""
    c.rollout.window_steps = 16  # decode steps per dispatch, 8 to 32
    # Share of `prompts` that is drawn for beside them, up to 1: a rollout ends when so many
    # as prompts are done; the others go on in the next one, under its weights. 0: it waits for all.
    c.rollout.overdraw = 0.0
    # Batches that are drawn ahead of the one that is trained on, 0 to 4: 1 is one-step-off-policy.
    c.rollout.staleness = 0

    c.algorithm = ml_collections.ConfigDict()
    # docs/algorithms.md has a table of what follows. None: as algorithm.policy has it by default.
    c.algorithm.advantage = "grpo"  # or another of evr1/config/algorithms.py
    c.algorithm.passk = 0  # of grpo_passk: completions that the best is taken of; 0: rollout.n
    c.algorithm.discount = 1.0  # of reinforce_plus_plus: factor on a reward a token later
    c.algorithm.ema_decay = 0.99  # of the running moments of ema_grpo, a step
    # Completions that rollout.max_completion_tokens cut are in no loss and no denominator (DAPO's
    # overlong filtering), though in the statistics of their group.
    c.algorithm.mask_truncated = False
    # T-GRPO: added to the reward of correct answers to a prompt with a video whose share of correct
    # answers is at least temporal_margin times that with shuffled frames; 0: off.
    c.algorithm.temporal_bonus = 0.0
    c.algorithm.temporal_margin = 1.0
    c.algorithm.temporal_rollouts = 0  # completions drawn on shuffled frames; 0: half of rollout.n
    c.algorithm.policy = "ppo"  # or gspo, gspo_token, cispo, sapo, reinforce, gmpo
    # The ratio is clipped to [1 - clip_low, 1 + clip_high]; 0: no such bound. ppo: DAPO's .2, .28.
    c.algorithm.clip_low = config_dict.placeholder(float)
    c.algorithm.clip_high = config_dict.placeholder(float)
    # Bound on the loss of a negative advantage; 0: off. ppo: 3.
    c.algorithm.clip_dual = config_dict.placeholder(float)
    c.algorithm.sapo_temperature_positive = 1.0  # of the gate, for positive advantages
    c.algorithm.sapo_temperature_negative = 1.05  # for the others
    # token_mean, sequence_mean, fixed_length, sequence_sum or token_sum. ppo: token_mean.
    c.algorithm.aggregation = config_dict.placeholder(str)
    # What the last three divide by; 0: rollout.max_completion_tokens for fixed_length, else 1.
    c.algorithm.aggregation_divisor = 0.0
    # Share of the tokens, those of highest entropy, that have a policy loss (80/20: .2); 1: all.
    c.algorithm.entropy_share = 1.0
    # What is done to tokens whose log-probability and advantage covary most, against a collapse of
    # the entropy: clip (no policy loss) or kl (held to the old policy); empty: nothing.
    c.algorithm.covariance = ""
    c.algorithm.covariance_share = 2e-4  # of the tokens that this is done to
    c.algorithm.covariance_low = 1.0  # of clip: those drawn have a covariance above it
    c.algorithm.covariance_high = 5.0  # and below it
    c.algorithm.covariance_coef = 1.0  # of kl: of |log ratio|
    # A completion of negative advantage has no policy loss where log(sampler / policy) is over it,
    # as a mean of its tokens, in nats; 0: off.
    c.algorithm.off_policy_bound = 0.0
    c.algorithm.kl_coef = 0.0  # of the KL to the starting model; 0: no such model
    c.algorithm.kl_estimator = "k3"  # or k1, k2, abs
    # Gradient of the estimate in the loss. own: that of its formula; k2: that of k2; importance:
    # the estimate times policy / old, with the gradient of both. The last two are the KL's own.
    c.algorithm.kl_gradient = "own"
    c.algorithm.kl_placement = "loss"  # or reward: a penalty of each token, off the reward
    c.algorithm.kl_controller = "fixed"  # or adaptive: the coefficient follows kl_target
    c.algorithm.kl_target = 0.1  # mean KL of a token, in nats
    c.algorithm.kl_horizon = 10000.0  # completions over which the coefficient adapts
    c.algorithm.entropy_coef = 0.0  # of the entropy that the loss rewards; 0: off
    # or adaptive: from entropy_coef on it grows by entropy_step after each step whose entropy was
    # below entropy_target, shrinks by it after others, and is 0 while the entropy is above.
    c.algorithm.entropy_controller = "fixed"
    c.algorithm.entropy_target = 0.2  # mean of a token, in nats
    c.algorithm.entropy_step = 0.005
    # Of the load-balancing loss of a mixture of experts; 0: off, and no router/ metrics.
    c.algorithm.balance_coef = 0.0
    # Weights for what the sampler and the trainer disagree on: token_tis, sequence_tis, token_mis,
    # sequence_mis, geometric or veto; empty: none. Bounds of None: its own defaults.
    c.algorithm.correction = ""
    c.algorithm.correction_low = config_dict.placeholder(float)
    c.algorithm.correction_high = config_dict.placeholder(float)
    c.algorithm.correction_floor = 0.0  # weights of token_tis, sequence_tis are raised to it; 0: no
    c.algorithm.correction_normalized = False  # weights are divided by their mean in the minibatch
    # Beside a correction or without one: token, sequence or geometric drops what is outside the
    # bounds (None: those of token_mis, sequence_mis, geometric; 0: no such bound); empty: nothing.
    c.algorithm.rejection = ""
    c.algorithm.rejection_low = config_dict.placeholder(float)
    c.algorithm.rejection_high = config_dict.placeholder(float)
    c.algorithm.veto = 0.0  # drops completions with policy / sampler of any token below it; 0: off
    # The model that the KL compares with, by default the starting one: how much of itself it keeps
    # at each step while it follows the policy (1: all), or every how many steps it becomes the
    # policy (0: never).
    c.algorithm.reference_decay = 1.0
    c.algorithm.reference_refresh_steps = 0
    c.algorithm.updates_per_rollout = 1  # minibatches of a rollout batch, an optimizer update each
    c.algorithm.epochs_per_rollout = 1  # times that each of them is trained on
    # What the ratio compares with. recompute: one more forward pass before the first update;
    # sampler: the sampler's own; on_policy: the policy itself (one update per rollout batch only);
    # auto: on_policy where that is the same, else recompute.
    c.algorithm.old_logprobs = "auto"

    # The critic of algorithm.advantage=gae (PPO).
    c.critic = ml_collections.ConfigDict()
    c.critic.trunk = "own"  # or shared: a head on the policy, whose trunk it does not move
    c.critic.model = ""  # as model, what an own trunk starts from; empty: model
    c.critic.learning_rate = 1e-5  # the rest of its optimizer is that of optim
    c.critic.warmup_steps = 0  # RL steps at the start in which the critic alone learns
    c.critic.clip = 0.2  # values may move so far from the old ones in a rollout batch; 0: freely
    c.critic.discount = 1.0  # of what comes a token later
    c.critic.decay = 1.0  # lambda of generalised advantage estimation

    # Dynamic sampling (DAPO): draw until the batch is full of groups whose rewards differ.
    c.dynamic = ml_collections.ConfigDict()
    c.dynamic.enabled = False
    c.dynamic.min_spread = 0.0  # highest minus lowest reward of a group must be over this
    c.dynamic.draw_prompts = 0  # prompts are drawn in multiples of this; 0: rollout.prompts
    c.dynamic.max_rounds = 8  # of drawing in a step; then groups without signal fill the batch

    # Offline trajectories (offline_output of the rows) in the place of a group's last completions.
    c.mix = ml_collections.ConfigDict()
    c.mix.enabled = False
    # Only in groups whose mean accuracy is below it, from 0 to 1; None: in all that have one.
    c.mix.accuracy_threshold = config_dict.placeholder(float)
    c.mix.overlong = "refuse"  # trajectories over rollout.max_completion_tokens; or truncate
    c.mix.per_group = 1  # trajectories a group at most; fewer than rollout.n
    # on_policy: as if sampled; importance: by the ratio to what wrote them; luffy: shaped; sft.
    c.mix.treatment = "on_policy"
    c.mix.luffy_gamma = 0.1  # of luffy: the smaller, the more unlikely tokens count
    c.mix.importance_clip = 1.0  # of importance: bound on the ratio
    c.mix.sft_coef = 1.0  # of sft: what stands for the advantage

    # The policy's own best completions of earlier steps in that place. per_group, treatment and
    # accuracy_threshold are those of mix; trajectories of the rows come first.
    c.replay = ml_collections.ConfigDict()
    c.replay.enabled = False
    c.replay.size = 1024  # prompts of which completions are kept
    c.replay.per_prompt = 1  # completions kept of each
    c.replay.min_accuracy = 1.0  # only those at least this accurate, from 0 to 1

    c.optim = ml_collections.ConfigDict()  # AdamW
    c.optim.learning_rate = 1e-6  # at its highest
    c.optim.schedule = "constant"  # or cosine, linear
    c.optim.warmup_steps = 0  # in optimizer updates
    c.optim.min_learning_rate = 0.0  # where cosine and linear end
    c.optim.b1 = 0.9
    c.optim.b2 = 0.999
    c.optim.eps = 1e-8
    c.optim.weight_decay = 0.01  # decoupled, on every trained parameter
    c.optim.max_grad_norm = 1.0  # global norm that gradients are clipped to
    # bfloat16: half the memory for both moments, which are then rounded up or down at random.
    c.optim.moments_dtype = "float32"
    c.optim.offload = False  # the moments lie in the host's memory between updates
    # Regular expressions of whole parameter paths: ("vision/.*",) is the tower, "vision/merger/.*"
    # its merger, "text/embed" the embeddings. With the whole tower frozen its features are computed
    # once a step.
    c.optim.freeze = ()

    # Low-rank adapters: with rank > 0 they alone are trained, and have optimizer state; rates ten
    # times those of full training are usual.
    c.lora = ml_collections.ConfigDict()
    c.lora.rank = 0  # inputs of an adapter's second matrix; 0: no adapters
    c.lora.alpha = 32.0  # what the adapters add is multiplied by alpha / rank
    # Regular expressions of parameter paths: the matrices that have adapters. The default is
    # attention, delta net and dense feed-forward of the text model, of any family.
    c.lora.targets = (
        r"text/(layers|blocks/\d+)/(attention|delta|mlp)/(q|k|v|o|qkv|gate|up|down)/kernel",
    )
    c.lora.dropout = 0.0  # share of an adapter's inputs left out, in updates alone
    # An adapter directory of peft or of a run to start from. It is trained further, with its own
    # rank, alpha and targets, and the KL's reference is the model with it as it is. Merged, it is a
    # part of the model, and the fields above say what is trained.
    c.lora.adapter = ""
    c.lora.merge_adapter = False
    c.lora.export_adapter = False  # also write workdir/adapter, which peft loads

    c.train = ml_collections.ConfigDict()
    c.train.dtype = "bfloat16"  # of the computation; parameters and optimizer state are float32
    c.train.microbatch_tokens = 65536  # padded tokens (prompt + n completions) of one pass
    # What a layer keeps for its backward pass, the least memory last; the rest is computed again.
    # none: everything is kept. dots: products with weights, attention. attention: its input and
    # attention (of the TPU's kernel). full: its input. offload: its input, in the host's memory.
    c.train.remat = "full"
    # Optimizer updates of a run that may be left out because their gradient is not finite; they are
    # counted and their rows named. One more stops the run.
    c.train.max_skipped_updates = 0

    c.mesh = ml_collections.ConfigDict()  # devices per axis; -1, once: whatever is left
    c.mesh.data = 1  # copies of the model
    c.mesh.fsdp = -1  # ways in which parameters and optimizer state are split
    c.mesh.tensor = 1  # ways in which heads, feed-forward widths and vocabulary are split
    # Devices that share the tokens of a group: a part of its prompt and some of its completions
    # each. For prompts that are too long for one; divides rollout.n, within a host.
    c.mesh.context = 1

    c.rewards = ml_collections.ConfigDict()
    c.rewards.accuracy_weight = 0.9  # the two weights add up to 1
    c.rewards.format_weight = 0.1
    # Coordinates in answers: pixels, unit (0-1) or thousand (0-1000, Qwen3-VL's own habit).
    c.rewards.box_scale = "pixels"
    c.rewards.unknown_type = ""  # what unknown problem types are read as; empty: refused
    c.rewards.extra = ""  # own scorers and terms, e.g. "my_rewards.py"; see docs/rewards.md
    c.rewards.terms = ()  # further terms of the reward, e.g. (("overlong_penalty", 0.5),)
    c.rewards.overlong_cache_tokens = 0  # below the limit; 0: a fifth of the limit
    c.rewards.repetition_words = 4  # words of a phrase that should not come again
    c.rewards.workers = 2  # scoring processes
    c.rewards.timeout_s = 2.0  # for one completion
    c.rewards.max_failed_share = 0.01  # stop when more scorers time out or break

    # An LLM that rules on the answers of some problem types, after the scorers; docs/rewards.md.
    c.rewards.judge = ml_collections.ConfigDict()
    c.rewards.judge.backend = ""  # http, or sampler: a model on this run's devices; empty: no judge
    c.rewards.judge.types = ("open-ended",)  # the problem types that it rules on
    c.rewards.judge.is_graded = False  # ask for a score from 0 to 1 instead of right or wrong
    c.rewards.judge.model = ""  # http: the name at the endpoint; sampler: a HF or Orbax directory
    c.rewards.judge.url = ""  # http: base URL, e.g. http://localhost:8000/v1
    c.rewards.judge.api_key_env = ""  # http: environment variable with the API key; empty: no key
    c.rewards.judge.json_schema = False  # http: have the endpoint enforce the reply's schema
    c.rewards.judge.cache = ""  # JSONL file of rulings, shared by runs; empty: none
    c.rewards.judge.max_tokens = 256  # of a reply, its reasoning included
    c.rewards.judge.timeout_s = 60.0  # http: for one request
    c.rewards.judge.deadline_s = 600.0  # http: for all of a batch, retries included
    c.rewards.judge.concurrency = 16  # http: requests at a time
    c.rewards.judge.retries = 3  # http: after 429, 5xx and connection errors
    c.rewards.judge.max_prompt_tokens = 8192  # sampler: longer prompts have their answer cut
    c.rewards.judge.slots = 16  # sampler: questions that decode at the same time

    c.eval = ml_collections.ConfigDict()  # greedy answers to the held-out rows, and to benchmarks
    c.eval.every_steps = 10  # 0: only before the first and after the last step
    c.eval.prompts = 0  # how many held-out rows; 0: all
    c.eval.max_completion_tokens = 0  # 0: as in rollout
    # Benchmarks that are answered beside the held-out rows, with their folders; docs/benchmarks.md:
    # (("lvbench", "data/lvbench"), ("my_task.py", "data/mine")).
    c.eval.benchmarks = ()
    c.eval.benchmark_limit = 64  # questions of each: always the same, spread over its first tag
    # Frame preset; empty: the one that each benchmark recommends. "train" (128 frames) and "smoke"
    # (32 small ones) are smaller than most of these.
    c.eval.benchmark_preset = ""
    c.eval.benchmark_max_tokens = 0  # of a response; 0: eval.max_completion_tokens

    c.checkpoint = ml_collections.ConfigDict()
    c.checkpoint.every_steps = 20  # 0: only at the end
    c.checkpoint.keep = 3  # the newest ones
    # Also the one that was best on the held-out rows, saved whenever an evaluation is better than
    # all before it; evr1 convert --run WORKDIR --step best exports it.
    c.checkpoint.keep_best = True
    c.checkpoint.export = True  # write a HF directory at the end
    c.checkpoint.export_dtype = "bfloat16"  # of its tensors; or float32

    # Several processes as one run: Slurm, Open MPI, Cloud TPU and GKE tell all of this by
    # themselves; elsewhere every process is given it.
    c.hosts = ml_collections.ConfigDict()
    c.hosts.coordinator = ""  # address:port of process 0, which all others reach
    c.hosts.count = 1  # processes
    c.hosts.index = 0  # this one

    c.log = ml_collections.ConfigDict()
    c.log.tensorboard = True  # event files in workdir/tensorboard
    c.log.wandb = ""  # project name; needs the wandb extra; gets metrics and tables of rollouts
    c.log.trackio = ""  # likewise, of Trackio and its extra
    c.log.rollouts_per_step = 0  # how many go to rollouts.jsonl; 0: all
    c.log.profile_steps = 0  # steps whose trace goes to workdir/profile, from the 2nd on; 0: none
    c.log.report = True  # write report.html at evaluations and at the end
    return c.lock()  # a misspelt field in a config file is an error
