"""A trial command for tests: says its process ID, waits while it is told to, reports 0.1 + its number, then 0.3.

python ray_trial.py FOLDER [SECONDS]: waits while FOLDER/NUMBER.wait is there; FOLDER/NUMBER.begun has the ID.
"""

import json
import os
import sys
import time

folder, number = sys.argv[1], int(os.environ["NNAS_TRIAL"])
attempt = int(os.environ["NNAS_ATTEMPT"])
begun = os.path.join(folder, f"{number}.begun")
with open(begun + ".part", "w") as stream:
    stream.write(str(os.getpid()))
os.replace(begun + ".part", begun)
with open(os.environ["NNAS_INTERMEDIATE"], "a") as stream:
    stream.write(json.dumps({"value": 0.1 + number}) + "\n")
    stream.write(json.dumps({"value": 0.1 + 0.2}) + "\n")
while os.path.exists(os.path.join(folder, f"{number}.wait")):
    time.sleep(0.01)
with open(os.environ["NNAS_PARAMETERS"]) as stream:
    parameters = json.load(stream)
value = sum((one["_idx"] + 1) / 3 ** (place + 1) for place, (_, one) in enumerate(sorted(parameters.items())))
result = {"value": value, "metrics": {"third": 1 / 3}, "cost": {"attempt": attempt}}
with open(os.environ["NNAS_RESULT"] + ".part", "w") as stream:
    json.dump(result, stream)
os.replace(os.environ["NNAS_RESULT"] + ".part", os.environ["NNAS_RESULT"])
