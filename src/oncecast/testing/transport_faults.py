from .transport_reading import Check

CHECKS: dict[str, Check] = {}
