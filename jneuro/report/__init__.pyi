from .data import ReportData as ReportData
from .html import write_report as write_report
