import sys
sys.path.insert(0, "/work/main")
import tests.faults.test_f14_slow_clients as t
import psutil
orig = t.are_gone
async def dbg(site, siege, source):
    accounts = (await siege.admin.ask(t.messages.ListAccounts, kind="user")).accounts
    p = psutil.Process(site.master.process.pid)
    print(t.links_from(site, source), [(a.name) for a in accounts if a.linked], p.cpu_times()[:2], [ (c.status) for c in p.net_connections("tcp4") if c.raddr and c.raddr[0]==source][:3], flush=True)
    return await orig(site, siege, source)
t.are_gone = dbg
from tests.faults.test_f14_slow_clients import *
