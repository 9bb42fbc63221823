"""handler.py, whose worker compiles something beside the serving, for ever."""

import time
from dataclasses import replace
from typing import Any

if __name__ != "__mp_main__":
    import torch

    import handler
    from worker.engine.denoiser.compiled import TorchCompiler
    from worker.engine.denoiser.cuda_graphs import Arguments, Work
    from worker.engine.denoiser.graphs import Graphs

    def compile_for_ever(*_: Any) -> None:
        while True:
            compiler._floor.stand_still()
            time.sleep(0.01)

    compiler = TorchCompiler(None, backend="eager")
    compiler._run_compiled = compile_for_ever  # type: ignore[method-assign,assignment]
    compiler.submit(Work("nothing", torch.nn.Identity(), print), Arguments((), {}, ()))
    replica = handler.WORKER.model.replicas[0]
    device: Any = None  # nothing is drawn
    replica.engine = replace(replica.engine, graphs=Graphs(device, measure=False, compiler=compiler))

if __name__ == "__main__":
    handler.main()
