"""The words and numbers that the bicycle shop's data is made of: names, addresses, models, seasons.

The order of each list and every weight are part of the data: changing one changes the generated files.
"""

import numpy as np


def _words_of(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = _words_of(
    """
    Ada Aiko Alan Alma Amara Amir Ana Anton Astrid Aylin Beatriz Ben Bruno Camila Carla Carmen Cedric Chen
    Chloé Clara Dario Deborah Diego Dolores Edith Elena Elias Emeka Emma Eva Fatima Felix Fiona Frida Gabriel
    Gina Grace Hannah Hassan Hugo Ida Ines Irene Isaac Ivan Jada Jakob Jamal Jana João Joel Jorge José Judith
    Juan Kai Karin Kenji Lars Laura Lea Leon Lina Luca Lucía Luis Maja Malik Marcus Maria Marta Max Mei Mia
    Miguel Mila Mona Nadia Nina Noah Nora Olga Omar Oscar Paula Pedro Priya Rafael Rania Renée Rosa Ruth
    Samir Sara Selma Silas Sofia Søren Tara Theo Thomas Uma Valeria Vera Viktor Walter Yara Yusuf Zoë
    """
)

LAST_NAMES = _words_of(
    """
    Abbott Abreu Adeyemi Ahmed Almeida Andersson Araújo Baker Barros Becker Bell Bennett Berg Blanc Boateng
    Brandt Brown Bustamante Caldwell Campos Castillo Chang Costa Cruz D'Angelo Dalton Das Díaz Dubois Eriksen
    Esposito Farouk Ferreira Fischer Flores Fontaine Foster García Gomes Graves Gupta Haddad Hansen Hayes
    Herrera Hoffman Holm Hughes Ibarra Ito Jensen Johnson Kapoor Keller Khan Kim Kowalski Lang Larsen Lee
    Lopes Lund MacLeod Marsh Martínez Mbeki Meyer Mills Moreau Morgan Moura Müller Nakamura Navarro Nguyen
    Nielsen Novak Nuñez O'Brien O'Neill Okafor Olsen Ortiz Parker Patel Pérez Peters Petrov Pinto Ramos Reed
    Ribeiro Rossi Roth Ruiz Sanders Santos Sato Schmidt Sharma Silva Singh Souza Steiner Suzuki Tanaka Taylor
    Torres Turner Vance Vargas Vasquez Vogel Walker Weber White Wong Yamada Yılmaz Young Zhang Zimmermann
    """  # noqa: RUF001 - Turkish has a dotless i
)

STREETS = _words_of(
    """
    Acorn Alder Almond Bay Beacon Birch Bridge Brook Canal Cedar Chapel Cherry Church Clay Clover Copper
    Cypress Depot Eagle East Elm Fern Ferry Field Forest Garden Glen Grove Harbor Hazel Heron Hickory High
    Hill Juniper King Lake Laurel Liberty Lincoln Linden Main Maple Market Meadow Mill Mission Moss North Oak
    Olive Orchard Park Peach Pine Poplar Prairie Quarry Railroad Ridge River Rose Sage School Sierra South
    Spring Spruce Station Stone Summit Sunset Sycamore Union Valley View Walnut Water West Willow Wren
    """
)
STREET_KINDS = _words_of("Street Street Street Avenue Avenue Road Road Lane Drive Court Way Boulevard")
STREET_ENDS = [""] * 88 + [
    ", Apt 1",
    ", Apt 2",
    ", Apt 3",
    ", Apt 12",
    ", Suite 300",
    ' "Rear"',
    " #2",
    " #5",
]

CITIES = {  # state -> its cities and where their postal codes begin
    state: {city: int(code) for city, _, code in (text.strip().rpartition(" ") for text in cities.split(","))}
    for state, cities in {
        "CA": """Santa Brisa 93110, San José del Mar 92680, Alder Bay 94720, Port Marlow 95430, Mirador 92270,
            Orchard Flats 95120, Los Pinos 91880, Redwood Point 95560, São Lucas 93930, Vista Dorada 92090""",
        "NY": """Harlow Falls 14300, Kingsbridge Landing 12400, Saint-Émile 12950, East Pelham 11730,
            Maplecrest 10590, New Utrecht Mills 11220, Fisher's Rest 06390, Oneida Springs 13420,
            Stony Harbor 11790, Whitcombe 14850, Port Lorraine 11050, Amity Corners 14030""",
        "TX": """Rio Seco 78840, Peñasco 79840, Bluebonnet 75450, Cedar Wells 76430, Llano Alto 78640,
            Port Esperanza 77970, Sweetgrass 79550, Mesquite Bend 75150""",
    }.items()
}
STATES = list(CITIES)
STATE_WEIGHTS = (31, 50, 19)  # percent of the customers, so that the first three stores differ in size

BRANDS = ["Coyote", "Halden", "Ironwood", "Kestrel", "Müritz", "Northwind", "Pampa", "Sørli", "Volta"]
CATEGORIES = ["Children Bicycles", "Comfort Bicycles", "Cruisers Bicycles", "Cyclocross Bicycles"]
CATEGORIES += ["Electric Bikes", "Mountain Bikes", "Road Bikes"]
CATEGORY_PRICES = np.array(  # dollars: lowest price, and range above it
    [(150, 300), (400, 500), (320, 600), (1300, 2200), (1600, 2900), (550, 3400), (750, 5200)], np.int64
)
CATEGORY_WEIGHTS = {  # by model year: electric bikes become more popular
    2023: (20, 12, 26, 4, 4, 20, 14),
    2024: (19, 11, 24, 4, 10, 19, 13),
    2025: (18, 10, 21, 4, 17, 18, 12),
    2026: (18, 10, 18, 4, 24, 16, 10),
}
MODELS = _words_of(
    """
    Arroyo Badger Bolt Breeze Canyon Cinder Comet Dash Drift Echo Ember Falcon Fjord Glide Harrier Juniper
    Lark Lupine Mesa Mistral Nomad Otter Pebble Pioneer Quill Ranger Ripple Rook Sable Scout Sierra Sparrow
    Strand Swift Tempo Terra Trace Vega Wander Zephyr
    """
)
SIZES = ["", ' 29"', " Disc", " Step-Thru", ' 27.5"', " Pro", ", 3-Speed", " EQ"]
CHILD_SIZES = [' 12"', ' 16"', ' 20"', ' 24"']

# A customer whose last name looks like a missing value, one with an apostrophe, and two whose address has two lines
CUSTOMER_CALLED_NULL, CUSTOMER_WITH_APOSTROPHE, CUSTOMERS_WITH_TWO_LINES = 17, 27, (33, 148)

MONTH_WEIGHTS = (60, 70, 95, 122, 138, 142, 130, 116, 102, 86, 76, 84)  # how likely an order is in each month
WEEKDAY_WEIGHTS = (88, 82, 84, 90, 106, 138, 112)  # how likely an order is on each day, Monday to Sunday
DISCOUNTS = ["0.00", "0.05", "0.07", "0.10", "0.20"]
USUAL_DISCOUNT_WEIGHTS = (42, 22, 16, 14, 6)
SALE_DISCOUNT_WEIGHTS = (18, 18, 20, 24, 20)  # in November and January
