"""Values of recipes and hyperparameters that make no sense, of all five modules."""

import json
from collections.abc import Iterator
from typing import Any

from bad_inputs.cases import SOUND, Case

NAN, INFINITE = float("nan"), float("inf")
# module and script -> key -> values; a mapping among the values holds further settings that the case needs
VALUES: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = {
    ("02", "train.py"): {
        "reward_weights": ([0, 0], [-1, 1], "[NaN, 1]", "[Infinity, 1]", [1], [1, 1, 1], ["a", "b"], "[1, ", "one"),
        "rewards": ([], ["acuracy"], ["accuracy", "accuracy"], "accuracy, format", [1]),
        "verifier": ("numbr", "no_such_file.right", ""),
        "beta": (-1, "nan", "inf", "much"),
        "temperature": (0, -1, "nan"),
        "top_p": (5, 0, -0.1), "top_k": (-2, 1.5), "min_p": (2,), "repetition_penalty": (0,),
        "num_generations": (1, 0, -8, 7, "8x"), "num_generations_eval": (0,),
        "num_iterations": (0, -3), "steps_per_generation": (0, 3.5), "generation_batch_size": (0, 9),
        "max_completion_length": (0, -1, 10**9),
        "max_steps": (0, -5, 1.5),
        "num_train_epochs": (0, -1, "nan"),
        "learning_rate": (0, -1e-4, "nan", "1e-5x", 7, True, None),
        "lr_scheduler_type": ("cosin", 3), "lr_scheduler_kwargs": ('{"nonsense": 1}', "{", "words", "[1]"),
        "gradient_checkpointing_kwargs": ("{", "words"), "accelerator_config": ("{", "no.json", '{"nonsense": 1}'),
        "warmup_steps": (-1, "some"), "weight_decay": (-0.1,), "max_grad_norm": (-1,),
        "adam_beta1": (1, -0.1), "adam_beta2": (1.5,), "adam_epsilon": (0,),
        "optim": ("adamx",), "optim_args": ("nonsense=1", "{", "beta3"),
        "per_device_train_batch_size": (0, -1, 1.5, 10**9), "gradient_accumulation_steps": (0, -1),
        "epsilon": (0, -0.2), "epsilon_high": (-1, 0.1), "delta": (0.5,), "top_entropy_quantile": (0, 1.5),
        "loss_type": ("dappo",), "importance_sampling_level": ("word",), "scale_rewards": ("maybe",),
        "save_steps": (0, -1), "save_strategy": ("sometimes", "best"), "save_total_limit": (0,),
        "logging_steps": (0, -1), "logging_strategy": ("loud",), "log_level": ("loud",),
        "eval_strategy": ("steps", "sometimes"),
        "seed": (-1, 2**40, 1.5), "data_seed": (-1, 2**70), "dataloader_num_workers": (-1,),
        "dtype": ("float8", "fp32"), "bf16": ("maybe", True), "use_cpu": (False,), "use_vllm": (True,),
        "lora_rank": (-1, "16a", 10**9, 1.5), "lora_alpha": (0, -16, "nan"),
        "lora_target_modules": (["no_such_proj"], []),
        "base_model": ("tiny", "asset:tinny", "pypi:smolm", "channel:none", "hub:", "", 5, "asset:../tiny", "asset:/etc"),
        "reward_model": ("asset:tiny", "no"),
        "eval_problems": (0, -1), "eval_samples": (0,), "eval_max_new_tokens": (0, 10**9), "eval_batch_size": (0,),
        "chat_template_kwargs": ("[1]", "{", '{"no_such_variable": 1}'),
        "generation_kwargs": ('{"top_p": 5}', '{"nonsense": 1}', "{"), "model_init_kwargs": ('{"nonsense": 1}', "{"),
        "record_steps": ([0], [-1], [99]),
        "run_name": ("--help", "a\nb"), "help": ("true",), "learning_rte": (1e-5,), "lr": (1e-5,), "hub_token": ("hf_" + "x" * 34,),
        "report_to": (["tensorbord"], "[1]"), "push_to_hub": (True,), "deepspeed": ("no.json", "{"), "fsdp": ("half",),
        "load_best_model_at_end": (True,), "remove_unused_columns": (True,), "ref_model_sync_steps": (0,),
        "dataloader_drop_last": ("perhaps",), "use_liger_kernel": (True,), "torch_compile_mode": ("fastest",),
        "resume_from_checkpoint": ("no/such/folder",), "experiment": ("",), "module": ("../../etc",),
        "max_tool_calling_iterations": (0,), "vllm_mode": ("elsewhere",), "auto_find_batch_size": (True,),
        "ignore_data_skip": ("perhaps",), "config": ("recipes/none.yaml", "/dev/null"),
        "loss_weights": ([1],), "max_prompt_length": (64,), "epsilon_low": (0.1,),
    },
    ("02", "train_rloo.py"): {"num_generations": (1,), "beta": (-0.1,), "reward_weights": ([0, 0],), "temperature": (0,)},
    ("02", "train_reward_model.py"): {"max_length": (0,), "center_rewards_coefficient": (-1,), "eval_samples": (0,)},
    ("02", "train_distilled.py"): {"beta": (1.5,), "temperature": (0,), "teacher": ("asset:none",), "lmbda": (2,)},
    ("01", "train.py"): {
        "beta": (0, -0.1, "nan", "inf"), "label_smoothing": (0.5, -0.1), "ld_alpha": (2,), "max_length": (0, 1, -1),
        "loss_type": (["sigmoidd"], [], "sigmoid, sft"), "loss_weights": ([1.0], [0, 0], [-1, 1], "[NaN, 1]"),
        "f_divergence_type": ("js",), "truncation_mode": ("up",), "precompute_ref_batch_size": (0,),
        "num_train_epochs": (0,), "max_steps": (0,), "learning_rate": (-1, "nan"), "eval_steps": (0,),
        "per_device_train_batch_size": (0, 1000), "per_device_eval_batch_size": (0,), "eval_strategy": ("sometimes",),
        "quantization": ("int3", "nf4"), "fsdp": ("half",), "fsdp_config": ('{"version": 3}',), "pair_samples": (4,),
        "rewards": (["accuracy"],), "seed": (-1,), "discopop_tau": (0,), "rpo_alpha": (1,), "pad_to_multiple_of": (0,),
        "lora_rank": (-1,), "sync_ref_model": (True,), "use_weighting": ("perhaps",),
    },
    ("01", "pairs_sampled.py"): {
        "pair_problems": (0, -1), "pair_samples": (1, 0), "pairs_per_problem": (0,), "pair_batch_size": (0,), "seed": (-1,),
        "learning_rate": (1e-5,),
    },
    ("03", "train.py"): {
        "fsdp": ("half", ["bogus"]), "reward_weights": ([0, 0],), "beta": (-1,), "top_p": (5,), "num_iterations": (0,),
        "fsdp_config": (
            '{"version": 3}', '{"version": 2, "transformer_layer_cls_to_wrap": ["NoSuchLayer"]}', '{"nonsense": 1}',
            '{"version": 2, "state_dict_type": "WHOLE"}', "[1]", "{", "no.json",
        ),
        "quantization": ("int3", "nf4"), "per_device_train_batch_size": (0, 9), "lora_rank": ("16a",), "save_steps": (0,),
        "num_train_epochs": (0,), "run_name": ("--help",), "save_strategy": ("no",), "sharding": ("full",),
    },
    ("04", "train.py"): {
        "lora_rank": (0, -1, "16a", 10**9), "lora_alpha": (0,), "lora_target_modules": (["no_such_proj"],),
        "quantization": ("int8", "NF4"), "vllm_max_model_length": (0, 5, -1), "vllm_gpu_memory_utilization": (0, 1.2),
        "reward_weights": ([0, 0],), "beta": (-1,), "num_iterations": (0,), "num_train_epochs": (0,), "top_p": (5,),
        "max_completion_length": (0,), "per_device_train_batch_size": (0, 9), "dtype": ("float8",), "load_in_4bit": (True,),
        "activation_checkpointing": (True,), "use_vllm": (True,), "learning_rate": ("1e-5x",), "save_steps": (0,),
    },
    ("05", "train.py"): {
        "job.reward_weights": ([0, 0], [-1, 1], [1], ".nan", "[.nan, 1]"), "job.rewards": ([], ["acuracy"], "accuracy"),
        "job.verifier": ("numbr",), "job.device": ("tpu", "gpu"), "job.base_model": ("asset:tinny", 5), "job.eval_problems": (0, "x"),
        "job.eval_samples": (0,), "job.eval_sampels": (1,), "job.report_to": ("mlflow",), "job": (1,),
        "algorithm.adv_estimator": ("grppo",), "algorithm.gamma": (2,), "algorithm.lam": (-1,), "algorithm.kl_ctrl.kl_coef": (-1,),
        "algorithm.norm_adv_by_std": (True,), "algoritm.gamma": (1,), "algorithm.use_kl_in_reward": ("perhaps",),
        "data.train_batch_size": (0, -1, 1.5, 7, 10**9), "data.max_prompt_length": (0, 1), "data.max_response_length": (0,),
        "data.seed": (-1, 2**40, None), "data.truncation": ("left",), "data.train_files": ("x",), "data.shuffel": (True,),
        "actor_rollout_ref.actor.optim.lr": (0, -1, ".nan", "1e-5x", 7), "actor_rollout_ref.actor.optim.lr_warmup_steps": (-2,),
        "actor_rollout_ref.actor.optim.weight_decay": (-1,), "actor_rollout_ref.actor.optim.clip_grad": (0,),
        "actor_rollout_ref.actor.optim.betas": ([0.9, 2],),
        "actor_rollout_ref.actor.clip_ratio": (0, -0.2), "actor_rollout_ref.actor.clip_ratio_c": (0.5,),
        "actor_rollout_ref.actor.ppo_epochs": (0,), "actor_rollout_ref.actor.ppo_mini_batch_size": (0, 3),
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": (0, 5), "actor_rollout_ref.actor.entropy_coeff": (-1,),
        "actor_rollout_ref.actor.kl_loss_coef": (-1,), "actor_rollout_ref.actor.loss_agg_mode": ("mean",),
        "actor_rollout_ref.actor.strategy": ("fsdp9",), "actor_rollout_ref.actor.policy_loss.loss_mode": ("vanila",),
        "actor_rollout_ref.actor.kl_loss_type": ("k9",),
        "actor_rollout_ref.rollout.n": (0, 1, -8), "actor_rollout_ref.rollout.temperature": (0, -1, ".nan"),
        "actor_rollout_ref.rollout.top_p": (5, 0), "actor_rollout_ref.rollout.top_k": (-2,), "actor_rollout_ref.rollout.name": ("vlm",),
        "actor_rollout_ref.rollout.tensor_model_parallel_size": (0, 3), "actor_rollout_ref.rollout.agent.num_workers": (0,),
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": (0, 7),
        "actor_rollout_ref.rollout.multi_turn.enable": (True,), "actor_rollout_ref.model.lora_rank": (-1, "16a"),
        "actor_rollout_ref.actor.fsdp_config.model_dtype": ("float8",), "actor_rollout_ref": (3,),
        "trainer.total_training_steps": (0, -1, 1.5, None), "trainer.save_freq": (0, -1), "trainer.test_freq": (0,),
        "trainer.nnodes": (2,), "trainer.total_epochs": (0,), "trainer.max_actor_ckpt_to_keep": (0,), "trainer.lager": (1,),
    },
}  # fmt: skip
# What a case needs besides its value, to be about that value.
NEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("02", "lora_alpha"): {"lora_rank": 4},
    ("02", "lora_target_modules"): {"lora_rank": 4},
    ("02", "num_train_epochs"): {"max_steps": -1},
    ("01", "num_train_epochs"): {"max_steps": -1},
    ("03", "num_train_epochs"): {"max_steps": -1},
    ("04", "num_train_epochs"): {"max_steps": -1},
}
# Why a job that completes all the same is right to: (module, key, value as JSON)
RIGHT: dict[tuple[str, str, str], str] = {
    ("02", "max_completion_length", "1000000000"): "a limit that none reaches: a completion ends with its end token. Preflight warns",
    ("02", "eval_max_new_tokens", "1000000000"): "a limit that none reaches, as in training",
    ("02", "lr_scheduler_kwargs", '{"nonsense": 1}'): "the scheduler of this recipe, constant_with_warmup, reads none of them",
    ("02", "optim_args", "nonsense=1"): "the optimizer of this recipe, AdamW, reads none of them",
    ("02", "epsilon_high", "0.1"): "to clip one side more is a choice",
    ("02", "bf16", "true"): "a CPU computes in bfloat16 too",
    ("02", "use_cpu", "false"): "there is no GPU to be used",
    ("02", "chat_template_kwargs", '{"no_such_variable": 1}'): "a template says nowhere which variables it reads",
    ("02", "experiment", ""): "no tracker is asked for, so nobody reads it",
    ("02", "module", "../../etc"): "a label in the results, of which no path is made",
    ("01", "per_device_train_batch_size", "1000"): "a batch takes the pairs that there are. Preflight warns",
    ("03", "save_strategy", "no"): "the trained model is saved all the same; only spot needs checkpoints, and refuses this",
}  # fmt: skip
RECIPES: dict[str, str | bytes] = {
    "a key twice": "max_steps: 1\nmax_steps: 2\n",
    "a list": "- a\n- b\n",
    "empty": "",
    "comments alone": "# nothing\n",
    "one text": "hello\n",
    "binary": b"\x00\x01\xff\xfe\x80PK\x03\x04",
    "no closing bracket": "rewards: [accuracy\n",
    "tabs": "max_steps:\t1\n\tseed: 1\n",
    "an object of Python": "seed: !!python/object/apply:os.getpid []\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "an alias within itself": "rewards: &a [*a]\n",
    "aliases that grow (a billion laughs)": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "5,000 brackets": "rewards: " + "[" * 5000 + "]" * 5000 + "\n",
    "a mapping as a key": "{a: 1}: 2\n",
    "a surrogate": 'run_name: "\\ud800"\n',
    "a zero byte": "run_name: a\x00b\n",
    "keys of other kinds": "1: 2\nnull: 3\ntrue: 4\n",
    "a date": "seed: 2026-11-27\n",
    "no as a word": "save_strategy: no\n",
    "a number of 5,000 digits": f"seed: {'9' * 5000}\n",
    "UTF-16": "max_steps: 1\n".encode("utf-16"),
    "Latin-1": "run_name: caf\xe9\n".encode("latin-1"),
}


def settings_cases() -> Iterator[Case]:
    """A case for each value and each recipe file, and the sound job that they change."""
    for (module, script), keys in VALUES.items():
        if module != "05":  # whose job needs a Ray cluster
            yield Case(
                module, "recipe", SOUND, script=script, right="the sound job that the other cases change"
            )
        for key, values in keys.items():
            for value in values:
                shown = value if isinstance(value, str) else json.dumps(value)
                yield Case(
                    module,
                    "recipe",
                    f"{key}={shown!r}" if not shown.isprintable() or not shown else f"{key}={shown}",
                    settings={**NEEDS.get((module, key), {}), key: value},
                    script=script,
                    right=RIGHT.get((module, key, shown), ""),
                )
    for module in ("02", "05"):
        for what, content in RECIPES.items():
            yield Case(
                module,
                "recipe",
                f"file: {what}",
                settings={"config": "recipes/bad.yaml"},
                files={"recipes/bad.yaml": content},
            )
