"""Known ways in which a training run dies: what its log says, why, and what to do.

The order is the order of blame. A log often tells of several troubles; the first row here that fits is the answer.
What we found out ourselves comes first: the log of a damaged checkpoint, or of a run that was well until its supervisor
was killed, may complain of anything. Rows of `CONSEQUENCES` come last: they tell that some rank was lost, not why.
"""

from helpers.processes.symptoms.arguments import ARGUMENTS
from helpers.processes.symptoms.consequences import CONSEQUENCES, UNATTENDED
from helpers.processes.symptoms.data_and_checkpoints import DATA_AND_CHECKPOINTS, SET_ASIDE
from helpers.processes.symptoms.installation import INSTALLATION
from helpers.processes.symptoms.resources import RESOURCES
from helpers.processes.symptoms.symptom import Symptom

SYMPTOMS = (SET_ASIDE, UNATTENDED, *ARGUMENTS, *INSTALLATION, *RESOURCES, *DATA_AND_CHECKPOINTS, *CONSEQUENCES)
