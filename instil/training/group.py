"""Leaving the group of processes that trained together."""

from __future__ import annotations

import gc

import torch


def leave_group() -> None:
    """End this process's part in the group that training joined, if it joined one.

    To be called once, as the last thing of a process whose run went well, when no result of it is held any more. The
    threads of gloo keep the tensors of the last exchange for a moment; one that lets go of them while Python shuts
    down ends the process with SIGABRT after all its work is done (pytorch/pytorch#179291). They are joined when the
    last reference to the group is gone, and the Trainer and its model refer to it in circles: hence the collection.
    That last reference must be Python's own, which lets go of the interpreter's lock meanwhile: were it the reducer's,
    the collector would hold the lock, and wait for a thread that wants it to free its tensors.
    After a failure it must not be called: the other ranks may never come to the exchange that a thread waits for.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        last = torch.distributed.group.WORLD
        torch.distributed.destroy_process_group()
        gc.collect()
        del last
