"""Names of people for LongEmbed's passkey task: a first and a last name make one."""

_FIRST = """Abigail Adrian Alice Amara Andre Anita Arthur Beatrice Benjamin Brigitte Caleb Carmen Charles Chiara Clara
Cyrus Daniel Deborah Diego Dylan Edith Elena Elliot Esther Farah Felix Fiona Gabriel Gloria Gustav Hannah Harold Helen
Hugo Ingrid Isaac Ivy Jasper Joan Julian Kamala Kevin Laura Leonard Lucia Magnus Maria Marcus Maya Miriam Nathan Nina
Oliver Olga Patrick Paula Quentin Rachel Ramon Rosa Samuel Sofia Stefan Teresa Theo Ursula Victor Vivian Walter Wanda
Xavier Yasmin Yusuf Zoe"""
_LAST = """Abbott Alvarez Anders Baker Banerjee Barlow Bennett Boateng Brandt Calloway Castillo Chang Clarke Cohen
Delgado Dixon Dubois Easton Eriksen Falk Ferreira Finch Garner Gibbons Greene Hart Hayashi Holloway Ibrahim Ingram
Jansen Jennings Kaplan Kowalski Lambert Lindqvist Lowell Maddox Marsh Mendez Moreau Munoz Nakamura Nolan Novak Okafor
Olsen Ortega Parrish Peralta Pham Quinn Ramsey Reyes Rossi Russo Sandoval Schwartz Silva Stone Suzuki Tanner Thorne
Trujillo Underwood Vance Vargas Wagner Walsh Weiss Whitaker Yamada York Zhang Ziegler"""

NAMES: tuple[str, ...] = tuple(f"{first} {last}" for first in _FIRST.split() for last in _LAST.split())
"""Thousands of full names, all different."""
