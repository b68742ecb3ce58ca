"""Does lm-eval's harness, given our exported task, find the greedy answers that the exact probe reports?

    python -m studies.harness_agreement --out studies/results/harness_agreement.json

asks facts of the embedded model's world by the exact probe and by lm-eval, in one process, in float32, and compares
prompt by prompt. It needs the extra `bench`. A prompt on which the two differ is listed with both answers and a cause:
the mark that the export gave it, an answer that never stopped, the smallest lead of a token over the next along the
answer (a near-tie, which padding and another order of sums can turn), or "unexplained".
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import instil
from instil.facts import FactSet, Role
from instil.files import write_json
from instil.loop.hardware import commit, hardware
from instil.model import LanguageModel
from instil.probe import MasteryMap, ProbeConfig, exemplar_sets, probe
from instil.probe.harness import export
from instil.probe.intervals import share
from instil.worlds import embedded_world

RESULTS = Path(__file__).parent / "results" / "harness_agreement.json"
NEAR_TIE = 1e-3
"""Lead in logits below which two float32 programs may take different tokens."""

Sample = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--facts", type=int, default=600, help="facts asked")
    parser.add_argument("--batch-size", type=int, default=32, help="of the harness")
    parser.add_argument("--seed", type=int, default=0, help="of the facts drawn and of the exemplar sets")
    options = parser.parse_args()
    if find_spec("lm_eval") is None:
        parser.error("lm-eval is not installed; it comes with the extra `bench`")
    lm = instil.load("embedded", dtype="float32", device="cpu")
    facts, exemplars = asked_facts(options.facts, options.seed)
    result = study(lm, facts, exemplars, ProbeConfig(seed=options.seed, prior=False), options.batch_size)
    write_json(options.out, result)
    print(f"{result['prompts']['agreeing']:,} of {result['prompts']['n']:,} prompts agree; written to {options.out}")


def asked_facts(count: int, seed: int) -> tuple[FactSet, FactSet]:
    """Facts of the embedded model's world, and the exemplars that it reserves."""
    world = embedded_world()
    asked = world.facts.where(lambda fact: fact.role is not Role.EXEMPLAR)
    return asked.sample(count, seed), world.facts.with_role(Role.EXEMPLAR)


def study(
    lm: LanguageModel, facts: FactSet, exemplars: FactSet, config: ProbeConfig, batch_size: int
) -> dict[str, Any]:
    """Both programs on the same facts, compared prompt by prompt and fact by fact."""
    started = datetime.now(UTC)
    sets = exemplar_sets(facts, exemplars, config)
    with tempfile.TemporaryDirectory() as folder:
        done = export(lm, facts, sets, config, out=Path(folder) / "task", name="agreement")
        began = time.perf_counter()
        mastery = probe(lm, facts, sets, config)
        probed = time.perf_counter() - began
        began = time.perf_counter()
        found = run_harness(lm, Path(folder) / "task", done.task, batch_size)
        harnessed = time.perf_counter() - began
    return {
        "study": "harness_agreement",
        "model": lm.describe(),
        "config": config.model_dump(mode="json"),
        "harness": {"name": "lm-eval", "version": version("lm_eval"), "batch_size": batch_size},
        "export": done.to_dict(),
        **agreement(lm, mastery, found["samples"], {fact.id: fact.cluster for fact in facts}),
        "scores": {
            "instil": {
                "exact_match": sum(row.p_greedy for row in mastery) / len(mastery),
                "known": sum(row.known for row in mastery) / len(mastery),
                "highly_known": sum(row.p_greedy == 1 for row in mastery) / len(mastery),
            },
            "harness": found["scores"],
        },
        "cost": {"probe_seconds": probed, "harness_seconds": harnessed},
        "seeds": [config.seed],
        "hardware": hardware(),
        "commit": commit(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def agreement(
    lm: LanguageModel, mastery: MasteryMap, samples: Sequence[Sample], clusters: Mapping[str, str]
) -> dict[str, Any]:
    """How many prompts and facts agree, with intervals clustered by subject, and every prompt that does not."""
    pairs = [(mastery.by_id[sample["doc"]["fact_id"]], sample) for sample in samples]
    same = [row.greedy_right_by_set[sample["doc"]["exemplar_set"]] == bool(_right(sample)) for row, sample in pairs]
    texts = [row.greedy_answer_by_set[sample["doc"]["exemplar_set"]] == _said(sample) for row, sample in pairs]
    of_subject = [clusters[row.fact_id] for row, _ in pairs]
    unlike = {row.fact_id for (row, _), agrees in zip(pairs, same, strict=True) if not agrees}
    facts = list(clusters)
    whole = [float(fact not in unlike) for fact in facts]
    return {
        "prompts": {
            "n": len(pairs),
            "agreeing": sum(same),
            "share": share([float(agrees) for agrees in same], of_subject).to_dict(),
            "same_text": sum(texts),
            "right_by_the_probe": sum(row.greedy_right_by_set[sample["doc"]["exemplar_set"]] for row, sample in pairs),
        },
        "facts": {
            "n": len(facts),
            "agreeing": int(sum(whole)),
            "share": share(whole, [clusters[fact] for fact in facts]).to_dict(),
        },
        "disagreeing": [
            {
                "fact_id": row.fact_id,
                "exemplar_set": sample["doc"]["exemplar_set"],
                "instil": row.greedy_answer_by_set[sample["doc"]["exemplar_set"]],
                "harness": _said(sample),
                "right": {"instil": not _right(sample), "harness": bool(_right(sample))},
                "cause": cause(lm, sample, row.greedy_answer_by_set[sample["doc"]["exemplar_set"]]),
            }
            for (row, sample), agrees in zip(pairs, same, strict=True)
            if not agrees
        ],
    }


def cause(lm: LanguageModel, sample: Sample, text: str) -> str:
    """Why a prompt may be judged otherwise by the harness."""
    if sample["doc"]["differs"]:
        return str(sample["doc"]["differs"])
    if text == _said(sample):
        return "the answer never stopped"
    lead = smallest_lead(lm, sample["doc"]["prompt"], text)
    return f"near-tie: a lead of {lead:.1e}" if lead < NEAR_TIE else "unexplained"


@torch.no_grad()
def smallest_lead(lm: LanguageModel, prompt: str, text: str) -> float:
    """The least difference between the two largest logits along an answer, its stop included."""
    options = {"add_special_tokens": False}
    context = lm.tokenizer(prompt, **options)["input_ids"]
    answer = list(lm.prompts.answer_ids(text)) if text else []
    logits_TV = lm.model(torch.tensor([context + answer], device=lm.device)).logits[0, len(context) - 1 :].float()
    best_T2 = logits_TV.topk(2, dim=-1).values
    return float((best_T2[:, 0] - best_T2[:, 1]).min())


# ---------------------------------------------------------------------- the harness


def run_harness(lm: LanguageModel, folder: Path, task: str, batch_size: int) -> dict[str, Any]:
    """lm-eval in this process, on a model in memory: its samples in the order of the documents, and its scores."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=batch_size, add_bos_token=False)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    scores = {
        name.partition(",")[0]: value
        for name, value in found["results"][task].items()
        if isinstance(value, float) and "_stderr" not in name
    }
    return {"samples": sorted(found["samples"][task], key=lambda sample: sample["doc_id"]), "scores": scores}


def by_fact(samples: Iterable[Sample]) -> dict[str, tuple[bool, ...]]:
    """For each fact whether the harness finds its answer right, behind each exemplar set in turn."""
    found: dict[str, dict[int, bool]] = {}
    for sample in samples:
        document = sample["doc"]
        found.setdefault(document["fact_id"], {})[document["exemplar_set"]] = bool(_right(sample))
    return {fact: tuple(right for _, right in sorted(sets.items())) for fact, sets in found.items()}


def _right(sample: Sample) -> float:
    return float(sample["exact_match"][1])


def _said(sample: Sample) -> str:
    return str(sample["filtered_resps"][0]).strip()


if __name__ == "__main__":
    main()
