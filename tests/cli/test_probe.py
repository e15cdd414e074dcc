import time
def test_probe(nnas, small_model, tmp_path):
    t=time.time()
    r = nnas("search", "model.py", "--mutator", "random", "--epochs", 2, "-o", "run", "--batch-size", 16)
    print(r.code, r.out, r.err, time.time()-t)
    t=time.time()
    r = nnas("search", "model.py", "--mutator", "random", "--epochs", 2, "-o", "run2", "--batch-size", 16, "--json")
    print(r.code, r.out, r.err, time.time()-t)
    for c in [["export", "run/checkpoint.pt"], ["tune","model.py","--checkpoint","run/checkpoint.pt","--trials",6], ["info"], ["list","tuners"],["ss-gen","model.py","-v"]]:
        t=time.time()
        r = nnas(*c)
        print(c, r.code, r.out, r.err, time.time()-t)
def test_fork(forks, small_model, tmp_path):
    t=time.time()
    r = forks.run(tmp_path, "search", "model.py", "--mutator", "random", "--epochs", 2, "-o", "run")
    print(r, time.time()-t)
    t=time.time()
    r = forks.run(tmp_path, "search", "model.py", "--mutator", "random", "--epochs", 2, "-o", "run2")
    print(r, time.time()-t)
