"""What a checker has found: one sentence, and the operations that show it."""


class Violation:
    def __init__(self, checker, text, operations=()):
        self.checker, self.text, self.operations = checker, text, list(operations)
