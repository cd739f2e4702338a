"""With how few pairs the job of 01_dpo_trl begins: exactly as many as TRL does a step with."""

import pytest
from job.summary import library_class
from prepared_pairs import PreparedDPOTrainer, least_pairs, prepared
from rl.tasks import DataError, make_splits
from tiny import tiny_model
from trl import DPOConfig

ROWS = make_splits("chain_sum", {"train": 4})["train"]
PAIRS = [
    {**row, **{side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}}
    for row in ROWS
]


@pytest.mark.parametrize(("drop_last", "least"), [(False, 1), (True, 3)])
def test_the_job_refuses_exactly_what_dpo_does_no_step_with(drop_last, least, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    config = DPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_steps=1,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        dataloader_drop_last=drop_last,
    )
    assert least_pairs(config) == least
    (model, tokenizer), (reference, _) = tiny_model(), tiny_model()

    def steps(pairs: list) -> int:
        data = prepared(pairs, tokenizer, config, name="train")
        trainer = PreparedDPOTrainer(
            model=model, ref_model=reference, args=config, train_dataset=data, processing_class=tokenizer
        )
        assert library_class(trainer) == "trl.DPOTrainer"  # what the record calls it
        trainer.train()
        return trainer.state.global_step

    assert steps(PAIRS[:least]) == 1
    if least > 1:
        assert steps(PAIRS[: least - 1]) == 0
    with pytest.raises(DataError, match=f"{least - 1} pairs are left to train on, and a step takes {least}"):
        prepared(PAIRS[: least - 1], tokenizer, config, name="train", least=least_pairs(config))
