"""One process of a training on several: started by torchrun with a run directory, told everything by its recipe.

torchrun --nproc-per-node 8 -m distill.train.worker RUN
"""

from __future__ import annotations

import sys
from dataclasses import asdict

from distill import specs
from distill.files import write_json
from distill.rundir import RunDir
from distill.train.parallel import joined
from distill.train.preparing import prepare
from distill.train.training import RESULT, job_folder, train_student


def main(place: str) -> None:
    run = RunDir(place)
    recipe = specs.parse(specs.Recipe, specs.read(run.recipe), str(run.recipe))
    with joined(recipe.train.context_parallel) as world:
        prepared = prepare(recipe, run)
        trained = train_student(prepared, run, world)
        if world.first:
            write_json(job_folder(prepared, run) / RESULT, asdict(trained))


if __name__ == "__main__":
    main(sys.argv[1])
