import json, time
import pytest
from endpoint_fixtures import launch, log_lines, wait_end
from harness import ROOT
from launchers import RayCluster
from rl.tasks import make_splits, write_splits
from sagemaker.core.training.configs import InputData, SourceCode
from workshop.session.staging import stage_source
ENDPOINT_WITH_TORCH = True
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("recipe","task","over","hosts"), [("smoke","chain_sum",[],1),("smoke","chain_sum",["trainer.total_training_steps=3","job.eval_problems=8"],2),("tools","long_sum",["trainer.total_training_steps=3","job.eval_problems=8"],1)])
def test_it(endpoint, make_trainer, tmp_path, recipe, task, over, hosts):
    source = stage_source(ROOT / "05_grpo_verl" / "scripts", build=tmp_path)
    folders = write_splits(make_splits(task, {"train": 200, "test": 60}), tmp_path / "data")
    trainer = make_trainer("", hosts=hosts, source_code=SourceCode(source_dir=str(source), entry_script="train.py", requirements="requirements.txt"),
        distributed=RayCluster(process_count_per_node=3-hosts), hyperparameters={"config": f"recipes/{recipe}.yaml", "overrides": over})
    channels = [InputData(channel_name=s, data_source=str(p)) for s, p in folders.items()]
    t=time.time()
    name = launch(trainer, input_data_config=channels)
    job = wait_end(name, 800)
    print("SECONDS", recipe, hosts, time.time()-t, job.get("TrainingJobStatus") if isinstance(job, dict) else job)
    lines = log_lines(name)
    print(*[l for l in lines if l.startswith("[")][:30], sep="\n")
    from workshop.jobs.outputs import fetch_output
    out = fetch_output(name, tmp_path/"out")
    print(sorted(p.name for p in out.data.iterdir()))
