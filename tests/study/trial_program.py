"""A trial command for tests of studies; does what ``objective.evaluate`` does, without anything of nnas.

python trial_program.py LOG SECONDS
"""

import json
import os
import sys
import time

with open(os.environ["NNAS_PARAMETERS"]) as stream:
    parameters = json.load(stream)
number = os.environ["NNAS_TRIAL"]
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
os.write(log, f"begin #{number}\n".encode())
time.sleep(float(sys.argv[2]))
indices = [parameters[key]["_idx"] for key in sorted(parameters)]
decisions = [one if isinstance(one, list) else [one] for one in indices]
value = sum((place + 1) * sum(index + 1 for index in decision) for place, decision in enumerate(decisions))
result = {"trial": int(number), "attempt": int(os.environ["NNAS_ATTEMPT"])}
if value % 10 == 3:
    result["error"] = f"{value} does not work"
else:
    result |= {"value": value, "metrics": {"value": value}, "cost": {"parts": len(decisions)}}
path = os.environ["NNAS_RESULT"]
with open(path + ".part", "w") as stream:
    json.dump(result, stream)
os.replace(path + ".part", path)
