from .components import Estimate as Estimate
from .components import Plot as Plot
from .components import Section as Section
from .components import Table as Table
from .components import forest as forest
from .components import lines as lines
from .data import ReportData as ReportData
from .page import write_report as write_report
