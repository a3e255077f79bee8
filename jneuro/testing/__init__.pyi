from .contract import ContractError as ContractError
from .measures import check_measure as check_measure
from .models import check_model as check_model
from .simulators import check_simulator as check_simulator
from .stimuli import check_stimulus as check_stimulus
