"""Where a run goes that outgrows one machine: two hosts to try it on, Slurm, Kubernetes."""

from helpers.cluster.hosts import Hosts, NoHosts, two_hosts
from helpers.cluster.hosts import why_none as why_no_hosts
from helpers.cluster.job import Slurm as slurm
from helpers.cluster.kubernetes import trainjob
from helpers.cluster.own_slurm import OwnSlurm
from helpers.cluster.own_slurm import why_not as why_no_slurm
