"""What clients ask that changes nothing."""

from msgspec import structs

from drqueue.master.core import queries
from drqueue.master.core.explain import why
from drqueue.master.core.named import frame_named, job_named, layer_named, slave_named
from drqueue.master.core.on_account import page_of_accounts
from drqueue.master.core.rights import Refused
from drqueue.master.core.sharing_views import page_of_limits, page_of_pools, page_of_shares
from drqueue.master.core.slave import Slave
from drqueue.master.core.turn import Turn
from drqueue.proto import tickets
from drqueue.proto.messages import (
    FarmInfo,
    FindLog,
    GetJob,
    GetSlave,
    GetSpec,
    GetTicket,
    ListAccounts,
    ListAttempts,
    ListFrames,
    ListJobs,
    ListSlaves,
    LogPlace,
    Reasons,
    Request,
    Spec,
    Ticket,
    WhoAmI,
    Why,
    You,
)
from drqueue.proto.model import JobSpec
from drqueue.proto.roles import Who, without_secrets
from drqueue.proto.sharing_messages import ListLimits, ListPools, ListShares

#: Requests that change nothing.
READS = (
    *(ListJobs, GetJob, GetSpec, ListFrames, ListSlaves, GetSlave, FarmInfo, Why, FindLog, ListAttempts),
    *(WhoAmI, GetTicket, ListAccounts, ListLimits, ListShares, ListPools),
)


def look(turn: Turn, client: int, request: Request, who: Who) -> None:
    """Answer what changes nothing."""
    state = turn.state
    match request:
        case ListJobs():
            turn.answer(
                client,
                queries.page_of_jobs(
                    state, turn.wall, request.rq, request.cursor, request.limit, request.all, request.owner
                ),
            )
        case GetJob():
            turn.answer(client, queries.one_job(job_named(turn, request.job), turn.wall, request.rq))
        case GetSpec():
            job = job_named(turn, request.job)
            mine = who.role == "admin" or (job.submitter != "" and job.submitter == who.name)
            turn.answer(client, Spec(rq=request.rq, spec=job.spec if mine else _without_secrets(job.spec)))
        case ListFrames():
            job = job_named(turn, request.job)
            layers = [layer_named(job, request.layer)] if request.layer else job.layers
            turn.answer(
                client,
                queries.page_of_frames(
                    layers, request.rq, request.cursor, request.limit, frozenset(request.states)
                ),
            )
        case ListSlaves():
            turn.answer(client, queries.page_of_slaves(state, request.rq, request.cursor, request.limit))
        case GetSlave():
            turn.answer(client, queries.one_slave(slave_named(turn, request.slave), request.rq))
        case FarmInfo():
            policy = turn.policy
            turn.answer(
                client,
                queries.farm_info(state, request.rq, policy.farm, policy.epoch, policy.software),
            )
        case Why():
            job = job_named(turn, request.job)
            layer, index = None, None
            if request.number is not None:
                layer, index = frame_named(job, request.layer, request.number)
            elif request.layer:
                layer = layer_named(job, request.layer)
            reasons = why(turn, job, layer, index)
            turn.answer(client, Reasons(rq=request.rq, reasons=tuple(reasons)))
        case FindLog():
            _find_log(turn, client, request)
        case ListAttempts():
            layer, index = frame_named(job_named(turn, request.job), request.layer, request.number)
            turn.ask_history(client, request, layer.index, layer.chunks.first(index))
        case WhoAmI():
            turn.answer(
                client, You(rq=request.rq, name=who.name, role=who.role, account=who.account, peer=who.peer)
            )
        case GetTicket():
            turn.answer(client, _ticket(turn, slave_named(turn, request.slave), request, who))
        case ListAccounts():
            turn.answer(client, page_of_accounts(turn, request))
        case ListLimits():
            turn.answer(client, page_of_limits(state, request))
        case ListShares():
            turn.answer(client, page_of_shares(state, request, turn.now))
        case ListPools():
            turn.answer(client, page_of_pools(state, request))
        case _:
            raise Refused("bad-request", f"a master does not answer {type(request).__name__}")


def _without_secrets(spec: JobSpec) -> JobSpec:
    """A job as others than its submitter may see it."""
    layers = tuple(structs.replace(layer, env=without_secrets(layer.env)) for layer in spec.layers)
    env, params = without_secrets(spec.env), without_secrets(spec.params)
    return structs.replace(spec, env=env, params=params, layers=layers)


def _ticket(turn: Turn, slave: Slave, request: GetTicket, who: Who) -> Ticket:
    control = slave.control if slave.link is not None else ""
    answer = Ticket(rq=request.rq, slave=slave.id, name=slave.name)
    if control.startswith("unix:"):
        # A path is this machine's, and there the slave asks the kernel who calls.
        return structs.replace(answer, control=control) if who.peer.startswith("uid ") else answer
    account = turn.state.register.accounts.get(slave.account)
    if not control or account is None or not account.pin or not slave.generation:
        return answer
    claim = tickets.Claim(who.name, who.role, who.account, slave.id, turn.wall + tickets.LIFE_S)
    key = tickets.slave_key(turn.policy.ticket_seed, slave.id, slave.generation)
    return structs.replace(answer, control=control, pin=account.pin, ticket=tickets.issue(claim, key))


def _find_log(turn: Turn, client: int, request: FindLog) -> None:
    """Where the log of a live attempt lies; for ended ones the shell asks the history."""
    job = job_named(turn, request.job)
    layer, index = frame_named(job, request.layer, request.number)
    attempt = layer.live.get(index)
    if attempt is None or request.attempt not in (None, attempt.key.attempt):
        turn.ask_history(client, request, layer.index, layer.chunks.first(index))
        return
    slave = attempt.slave
    turn.answer(
        client,
        LogPlace(
            rq=request.rq,
            key=attempt.key,
            number=attempt.number,
            slave=slave.name,
            control=slave.control,
            linked=slave.link is not None,
        ),
    )
