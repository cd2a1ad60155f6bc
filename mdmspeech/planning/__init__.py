"""`mdmspeech plan`: what a run needs on a TPU slice that is not there, from the compiler alone.
`configs` -> `program` -> `plan` (memory, FLOPs, bytes, collectives) -> `roofline` (how long a step
takes at least) -> `report`, `tables`; `sweep` looks for the best mesh.
"""
