"""Framework exports become models of ``ai.snn`` neurons; the passes in ``passes/raising`` apply this."""
