"""pycosat by sympy's own solver, for reasoning-gym's zebra puzzles, and for sympy itself, which asks pycosat where there is one.

The interface is that of https://github.com/conda/pycosat.
"""

from collections.abc import Iterable, Iterator

from sympy.assumptions.cnf import EncodedCNF
from sympy.logic.inference import satisfiable


def solve(clauses: Iterable[Iterable[int]]) -> list[int] | str:
    """The first of `itersolve`, or "UNSAT" where there is none."""
    return next(itersolve(clauses), "UNSAT")


def itersolve(clauses: Iterable[Iterable[int]]) -> Iterator[list[int]]:
    """Every solution of `clauses`, none twice: for each variable in order its number, negative where it is false.

    A clause is a sequence of numbers, not 0, of which one must hold: [1, -2] says that 1 is true or 2 is false. A
    number up to the largest that stands in no clause is free, and so takes both values.
    """
    encoded = [{int(literal) for literal in clause} for clause in clauses]
    largest = max((abs(literal) for clause in encoded for literal in clause), default=0)
    if not all(encoded):
        return  # a clause without a number cannot hold
    variables = {number: number for number in range(1, largest + 1)}
    for model in satisfiable(EncodedCNF(encoded, variables), algorithm="dpll2", all_models=True):
        if model is False:  # sympy's way to say that there is none
            return
        yield [number if model[number] else -number for number in variables]
