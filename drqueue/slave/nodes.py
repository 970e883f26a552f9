"""What a slave adds to the orders of each user that frames run as, kept at hand."""

from drqueue.settings import SlaveSettings
from drqueue.slave.environment import Node, node_basis
from drqueue.slave.run_as import RunAs, User

#: Users whose frames' environment is kept.
MOST = 1000


class Nodes:
    """One slave's. What is kept counts for one master's address and one id there."""

    def __init__(self, settings: SlaveSettings, run_as: RunAs, os_name: str, scratch: str) -> None:
        self._settings = settings
        self._run_as = run_as
        self._os_name = os_name
        self._scratch = scratch
        self._nodes: dict[User | None, Node] = {}
        self._nodes_for: tuple[str, int | None] = ("", None)

    def of(self, user: User | None, master: str, slave: int | None) -> Node:
        """For frames of that user (None: the slave's own), under what the master calls this slave now."""
        if (master, slave) != self._nodes_for or len(self._nodes) > MOST:
            self._nodes, self._nodes_for = {}, (master, slave)
        if user not in self._nodes:
            self._nodes[user] = self._make(user, master, slave)
        return self._nodes[user]

    def _make(self, user: User | None, master: str, slave: int | None) -> Node:
        settings = self._settings
        name, home = self._run_as.name_and_home(user)
        # The setting speaks of the frames' one user; mapped users have homes of their own.
        if user is None or user is self._run_as.default:
            home = settings.home or home
        basis = node_basis(
            path=settings.path,
            home=home,
            user=name,
            lang=settings.lang,
            tz=settings.tz,
            os_name=self._os_name,
            handed_on={
                "DRQUEUE_ROOT": settings.root,
                "DRQUEUE_TMP": settings.tmp,
                "DRQUEUE_ETC": settings.etc,
                "DRQUEUE_BIN": settings.bin,
                "DRQUEUE_LOGS": settings.logs,
                "DRQUEUE_DB": settings.db,
            },
        )
        basis["DRQUEUE_MASTER"] = master
        if slave is not None:
            basis["DRQUEUE_COMPID"] = str(slave)
        return Node(basis, home, self._scratch)
