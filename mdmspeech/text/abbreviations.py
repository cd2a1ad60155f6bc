"""Abbreviations in words, and whether their full stop ends a sentence: "Dr. Smith", "Oak Dr. It
is", "no. 5", "The answer is no.", "e.g.", "U.S.", "Henry VIII".
"""

import functools
import re

from mdmspeech.text.numerals import ROMAN, after, before, number, roman, word_set

_TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Drs": "Doctors",
    "Prof": "Professor", "Gen": "General", "Gov": "Governor", "Sen": "Senator",
    "Rep": "Representative", "Capt": "Captain", "Lt": "Lieutenant", "Col": "Colonel",
    "Sgt": "Sergeant", "Cmdr": "Commander", "Rev": "Reverend", "Hon": "Honorable",
    "Pres": "President", "Supt": "Superintendent", "Cpl": "Corporal", "Maj": "Major",
    "Adm": "Admiral", "Fr": "Father", "Msgr": "Monsignor", "Atty": "Attorney",
    "Messrs": "Messieurs", "Mme": "Madame", "Mlle": "Mademoiselle", "Mt": "Mount", "Ft": "Fort",
    "Insp": "Inspector", "Sr": "Sister", "Br": "Brother", "Sec": "Secretary",
}  # fmt: skip
_NEVER_WITHOUT_STOP = frozenset({
    "Gen", "Rep", "Sen", "Col", "Rev", "Hon", "Pres", "Fr", "Ft", "Sr", "Br", "Sec", "Maj", "Adm",
})  # fmt: skip
# Always these words; a full stop belongs to them, and ends the sentence too before a capital letter
# or at the end.
_ALWAYS = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz",
    "Jr": "Junior", "Sr": "Senior", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road",
    "Ln": "Lane", "Hwy": "Highway", "Pkwy": "Parkway", "Ste": "Suite", "Apt": "Apartment",
    "Bldg": "Building",
    "Ltd": "Limited", "Inc": "Incorporated", "Corp": "Corporation", "Bros": "Brothers",
    "Dept": "Department", "dept": "department", "Univ": "University", "Assn": "Association",
    "Assoc": "Association", "Govt": "Government", "govt": "government", "Intl": "International",
    "Natl": "National", "Sq": "Square", "Ct": "Court", "Pl": "Place", "Tpke": "Turnpike",
    "approx": "approximately", "Approx": "Approximately", "etc": "et cetera", "vs": "versus",
    "Vs": "Versus", "misc": "miscellaneous", "max": "maximum", "Max": "Maximum", "avg": "average",
    "Thurs": "Thursday", "Tues": "Tuesday", "Thu": "Thursday", "Tue": "Tuesday", "Wed": "Wednesday",
    "Mon": "Monday", "Fri": "Friday", "Jan": "January", "Feb": "February", "Apr": "April",
    "Aug": "August", "Sept": "September", "Sep": "September", "Oct": "October", "Nov": "November",
    "Dec": "December", "Jun": "June", "Jul": "July", "hrs": "hours", "mins": "minutes",
    "secs": "seconds",
    "yrs": "years", "lbs": "pounds", "tbsp": "tablespoon", "tsp": "teaspoon", "esp": "especially",
    "incl": "including", "excl": "excluding", "resp": "respectively", "tel": "telephone",
    "Tel": "Telephone", "temp": "temperature", "Temp": "Temperature", "Minn": "Minnesota",
    "Calif": "California", "Conn": "Connecticut", "Okla": "Oklahoma", "Tenn": "Tennessee",
    "eds": "editors", "dr": "doctor", "mr": "mister", "mrs": "missus", "hr": "hour",
    "cont": "continued", "ref": "reference", "Ref": "Reference", "attn": "attention",
    "Attn": "Attention",
}  # fmt: skip
# at the end of a sentence they are what they look like
_WORDS_TOO = frozenset(("max", "Max", "temp", "Temp", "ref", "Ref", "Jan"))
_DAY_NAMES = word_set("Mon Tue Tues Wed Thu Thurs Fri")
_MONTHS_SHORT = word_set("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
_STREETS = word_set("Ave Blvd Rd Ln Hwy Pkwy Sq Ct Pl Tpke")
_QUARTERS = word_set(
    "N S E W NW NE SW SE North South East West Northwest Northeast Southwest "
    "Southeast Suite Ste Apt Apartment Unit Floor Room"
)
_COMPANIES = word_set("Inc Ltd Corp Bros")
_OFFICES = word_set(
    "President Chairman Chairwoman Chief Director Vice Founder Co-founder "
    "Spokesman Spokeswoman Treasurer Chair Senior Executive"
)
_IN_MONTH = re.compile(r"\b(?:in|since|of|by|last|next|until|from|early|late|mid|this)[ -]$")
# a sentence does not end with them
_GO_ON = frozenset(("vs", "Vs", "approx", "Approx", "esp", "incl", "excl", "Ste", "Apt"))
# Only before a number: elsewhere they are words ("no.", "fig.", "sec.") or too rare.
_BEFORE_NUMBER = {
    "no": "number", "nos": "numbers", "nr": "number", "fig": "figure", "figs": "figures",
    "vol": "volume", "vols": "volumes", "ch": "chapter", "pp": "pages", "p": "page", "pg": "page",
    "sec": "section",
    "eq": "equation", "ed": "edition", "est": "established", "art": "article", "ext": "extension",
    "ver": "version", "ca": "circa", "c": "circa", "v": "verse", "vv": "verses", "app": "appendix",
    "tab": "table", "op": "opus", "pt": "part", "min": "minimum", "max": "maximum",
    "par": "paragraph", "ln": "line", "approx": "approximately", "rm": "room", "apt": "apartment",
    "ste": "suite",
}  # fmt: skip
_DAYS = {"Sat": "Saturday", "Sun": "Sunday"}
_SPELLINGS = {
    r"[Ee]\.? ?g\.|E\.G\.": "for example", r"[Ii]\.? ?e\.|I\.E\.": "that is",
    r"[Aa]\.k\.a\.?|A\.K\.A\.?|aka|AKA": "also known as", r"et al\.": "et al",
    r"[Cc]f\.": "compare", r"[Vv]iz\.": "namely", r"N\.B\.": "note well",
    r"w/o": "without", r"w/": "with", r"b/c": "because", r"[Cc]/o": "care of",
    r"n/a|N/A": "not applicable", r"BTW": "by the way", r"IMO": "in my opinion",
    r"TBD": "to be determined", r"WWII": "World War two", r"WWI": "World War one",
    r"WW2": "World War two", r"WW1": "World War one",
    r"ASAP": "as soon as possible", r"[Pp]h\.?D\.?(?!\w)": "PhD", r"P\.S\.": "PS",
    r"R\.?S\.?V\.?P\.?(?!\w)": "RSVP",
    r"B\. ?Sc\.?(?!\w)": "BSc", r"M\. ?Sc\.?(?!\w)": "MSc", r"B\. ?Eng\.?(?!\w)": "BEng",
    r"M\. ?Eng\.?(?!\w)": "MEng", r"B\. ?Ed\.?(?!\w)": "BEd", r"M\. ?Ed\.?(?!\w)": "MEd",
    r"D\. ?Sc\.?(?!\w)": "DSc", r"D\. ?Phil\.?(?!\w)": "DPhil", r"M\. ?Phil\.?(?!\w)": "MPhil",
    r"Ed\. ?D\.?(?!\w)": "EdD",
}  # fmt: skip
_PAIRS = {
    "and/or": "and or",
    "he/she": "he or she",
    "she/he": "she or he",
    "his/her": "his or her",
    "him/her": "him or her",
    "s/he": "she or he",
    "either/or": "either or",
}
_SPELLED = [
    (re.compile(rf"(?<![\w.])(?:{pattern})(?![A-Za-z])"), words)
    for pattern, words in _SPELLINGS.items()
]
_PAIR = re.compile(rf"(?<![\w/])(?:{'|'.join(_PAIRS)})(?![\w/])", re.IGNORECASE)
_STARTERS = word_set(
    "It The He She They We I You A An This That These Those There Then But And So If When While "
    "After Before In On At My Our His Her Their Your Its What Why How Who Where Is Are Was Were Do "
    "Does Did Can Could Will Would Should Not No Yes Please Turn Go Stop Take Walk Drive Let Now "
    "Here Some Many Most All Both Each Every One Two As For From With To By Of Once Next Later "
    "Also However"
)
_SAINTS = (
    "John|Johns|Paul|Paul's|Peter|Peters|Petersburg|Mary|Mary's|Patrick|George|Louis|Moritz|"
    "Andrew|Andrews|James|Thomas|Francis|Nicholas|Joseph|Mark|Luke|Matthew|Michael|Michaels|"
    "Helen|Helens|Helena|Helier|Lucia|Kitts|Vincent|Martin|Maarten|Pancras|Alban|Albans|"
    "Augustine|Bernard|Catherine|Catharines|Catherines|Clair|Claire|Clare|Cloud|Croix|Denis|"
    "Elmo|Gallen|Germain|Ives|Jude|Lawrence|Leonard|Malo|Barts|Stephen|Stephens|Swithin|Tropez|"
    "Valentine|Ann|Anne|Anthony|Agnes|Benedict|Brendan|Bride|David|Davids|Dominic|Edmund|"
    "Elizabeth|Ignatius|Jerome|Julian|Kilda|Monica|Olaf|Pius|Raphael|Sebastian|Simon|Teresa|"
    "Therese|Ursula|Wenceslas|Christopher|Barbara|Bartholomew|Basil|Boniface|Brigid|Cecilia|"
    "Columba|Cuthbert|Eustace|Gabriel|Giles|Gregory|Hilda|Hubert|Joan|Kevin|Lazarus|Magnus|"
    "Margaret|Maurice|Maur|Neots|Nazaire|Ninian|Oswald|Philip|Pierre|Rose|Theresa|Tammany|"
    "Timothy|Veronica|Victor|Vitus|Xavier"
)
_INITIALS = re.compile(
    r"(?<![\w.])(?P<letters>(?:[A-Za-z]\.){2,}[A-Za-z]?"
    r"|(?:[A-Z]\.){1}[A-Z](?=[\s,;:!?')]|$))(?![\w.])"
)
_HALF_DAY = re.compile(r"(?<![\w.])([aApP])\.\s?[mM]\.(?!\w)")
_SHORT_WORDS = word_set("NO ME SO AS WE HE GO DO OR ON IN BY TO OF IS BE MY UP IF AT AN OX")
_TITLE = re.compile(rf"\b(?P<t>{'|'.join(_TITLES)})(?P<dot>\.?)(?P<gap> )(?=[A-Z][\w'.]|[A-Z]\b)")
_ABBREVIATION = re.compile(
    rf"(?<![\w.'/-])(?P<a>{'|'.join(sorted(_ALWAYS, key=len, reverse=True))})(?:\."
    r"|(?<=\bvs)(?!\w))(?!\w)"
)
_NUMBERED = re.compile(
    (
        rf"(?<![\w.'])(?P<a>{'|'.join(sorted(_BEFORE_NUMBER, key=len, reverse=True))})(?P<dot>\.)\s?\s?(?=\d"
        r"|[IVXLC]+\b)"
    ),
    re.IGNORECASE,
)
_ANSWERED = re.compile(
    r"\b(?:said|say|says|saying|answer(?:s|ed)?|repl(?:y|ies|ied)|voted|is|was|be"
    r"|meant|means|told \w+|just|still)\s$"
)
_COUNTED = re.compile(
    r"\d+ (?!(?:of|in|on|at|and|or|to|for|from|by|with|is|was|has|had|will"
    r"|would|can|as|but|than|that|which|who)\b)[a-z]+"
)
_WEEKDAY = re.compile(
    r"(?<![\w.])(?P<d>Sat|Sun)\.(?=,| ?(?:\d|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug"
    r"|Sep|Oct|Nov|Dec)[a-z]*\b|[-–]|and (?:Mon|Sun|Sat)|at \d|to (?:Mon|Sun"
    r"|Sat)))|(?<=\b[Oo]n )(?P<on>Sat|Sun)\."
)
_MARCH = re.compile(r"(?<![\w.])Mar\.(?= ?\d)")
_STREET = re.compile(
    r"(?:(?<![\w'’])(?P<before>[\w'’]{1,40},?))?(?P<gap>\s{0,4})(?<![\w.])(?P<a>St"
    r"|Dr)(?P<dot>\.|\b)(?!\w)(?=(?P<after>\s{1,4}[\w']{1,40})?)"
)
_COMPANY = re.compile(r"(?<=[A-Z]\w) ?(?:)(?P<a>Co)\.(?!\w)|(?<=\w )(?P<b>Co)\.(?!\w)")
_DOTTED_WORDS = re.compile(r"(?<=[a-z]{2})\.(?=[A-Z][a-z])")
_ROMAN_CARDINAL = (
    "Chapter|chapter|Part|part|Act|act|Scene|scene|Section|section|Volume|volume|Book|book|"
    "Phase|phase|Article|article|World War|Mark|Type|type|Level|level|Stage|stage|Class|class|"
    "Grade|grade|Super Bowl|Apollo|Gemini|Final Fantasy|Episode|Round|round|Rocky|Vatican|"
    "Figure|Table|Appendix|Title|Schedule|Division|Factor|Unit|Lesson|War|Page|page"
)
_ROMAN_ORDINAL = (
    "Pope|King|Queen|Henry|Louis|Edward|George|William|Charles|James|Richard|Elizabeth|"
    "Napoleon|Pius|Benedict|Leo|Paul|Ramses|Frederick|Philip|Alexander|Nicholas|Peter|"
    "Catherine|Ivan|Umberto|Emmanuel|Gustav|Christian|Ferdinand|Mary|Innocent|Gregory|Clement|"
    "Urban|Boniface|John|Otto|Leopold|Haakon|Rama|Edmund|Constantine|Theodore|Xerxes|Darius|"
    "Cleopatra|Ptolemy|Wilhelm|Franz|Maximilian|Olaf|Harald|Margrethe|Juan Carlos|Felipe"
)
_ROMAN_C = re.compile(
    rf"\b(?P<name>{_ROMAN_CARDINAL}) (?P<r>(?![CDLM]\b){ROMAN.pattern})\b(?![.'’]\w)"
)
# A letter alone is an initial ("George C. Scott"), but a V where no name follows is the fifth.
_ROMAN_O = re.compile(
    rf"\b(?P<name>{_ROMAN_ORDINAL}) (?P<r>(?![ICDLMV]\b|X\b(?! "
    rf"of)){ROMAN.pattern}|I(?= of\b)|V(?!\.? [A-Z]))\b(?![.'’]\w)"
)
_ROMAN_ALONE = re.compile(r"(?<![\w.'-])(?P<r>(?=[XVI]{2,})(?:X{0,3})(?:IX|IV|V?I{0,3}))(?![\w'-])")


def read_abbreviations(text: str) -> str:
    """Every abbreviation of `text` in words; the full stop stays where it ends a sentence too."""
    text = _PAIR.sub(lambda m: _PAIRS[m[0].lower()], text)
    for pattern, words in _SPELLED:
        text = pattern.sub(functools.partial(_spelled, words), text)
    text = _STREET.sub(_street, text)
    text = _TITLE.sub(_title, text)
    text = _NUMBERED.sub(_numbered, text)
    text = _WEEKDAY.sub(
        lambda m: (
            _DAYS[m["d"] or m["on"]] + ("" if _first_word(m)[:3] in _MONTHS_SHORT else _stop(m))
        ),
        text,
    )
    text = _MARCH.sub("March", text)
    text = _COMPANY.sub(
        lambda m: (
            (" " if m[0].startswith(" ") else "")
            + "Company"
            + ("" if _office(_first_word(m)) else _stop(m))
        ),
        text,
    )
    text = _ABBREVIATION.sub(_always, text)
    text = _HALF_DAY.sub(lambda m: f"{m[1].upper()}M" + (_stop(m) if _ends(m) else ""), text)
    text = _INITIALS.sub(_initials, text)
    text = _DOTTED_WORDS.sub(". ", text)
    text = _ROMAN_C.sub(lambda m: f"{m['name']} {number(roman(m['r']))}", text)
    text = _ROMAN_O.sub(lambda m: f"{m['name']} the {number(roman(m['r']), ordinal=True)}", text)
    return _ROMAN_ALONE.sub(
        lambda m: number(roman(m["r"])) if m["r"] not in ("XX", "XXX", "XI", "IV") else m[0], text
    )


def read_dots(text: str) -> str:
    """A dot inside of what is left is said: "a.b" -> "a dot b"."""
    return re.sub(r"(?<=[^\W\d_])\.(?=[^\W\d_])", " dot ", text)


def _stop(match: re.Match) -> str:
    """The full stop of an abbreviation, where a sentence ends with it: at the end of the text or
    line, or before a capital letter.
    """
    return "." if re.match(r"[\"')\]]*(?:\s*$|\s*\n|\s+[\"'(]*[A-Z])", after(match)) else ""


def _spelled(words: str, match: re.Match) -> str:
    stop = _stop(match) if match[0].endswith(".") and words[0].isupper() else ""
    return (
        words[0].upper() + words[1:] if match[0][0].isupper() and "." in match[0] else words
    ) + stop


def _title(match: re.Match) -> str:
    """ "Sr. Mary" is a sister, "John Sr. He left" a senior."""
    senior = match["t"] == "Sr" and (
        re.search(r"[A-Z][a-z]+,? $", before(match)) or _first_word(match) in _STARTERS
    )
    return (
        match[0]
        if senior or (not match["dot"] and match["t"] in _NEVER_WITHOUT_STOP)
        else _TITLES[match["t"]] + " "
    )


def _first_word(match: re.Match) -> str:
    """The capitalised word after an abbreviation, "" where none follows."""
    following = re.match(r"\s*([A-Z][\w']*)", after(match))
    return following[1] if following else ""


def _goes_on(match: re.Match) -> bool:
    """Whether the word after "Ave.", "Jr.", "Wed." or "Inc." shows that its capital starts no
    sentence: "Ave. NW", "Jr. Day", "Wed. Nov. 5", "Inc. CEO".
    """
    name, following = match["a"], _first_word(match)
    if name in _DAY_NAMES:
        return following[:3] in _MONTHS_SHORT
    if name in _STREETS:
        return following in _QUARTERS
    if name in ("Jr", "Sr"):
        return bool(following) and following not in _STARTERS
    return name in _COMPANIES and _office(following)


def _office(word: str) -> bool:
    return word in _OFFICES or (len(word) > 1 and word.isupper())


def _always(match: re.Match) -> str:
    stop = (
        _stop(match)
        if match[0].endswith(".") and match["a"] not in _GO_ON and not _goes_on(match)
        else ""
    )
    if (
        stop
        and match["a"] in _WORDS_TOO
        and not (match["a"] == "Jan" and _IN_MONTH.search(before(match)))
    ):
        return match[0]
    return _ALWAYS[match["a"]] + stop


# Also words, letters or other abbreviations: not before a number in another form.
_ONLY_BEFORE_A_DIGIT = (
    "no", "ed", "art", "min", "est", "app", "c", "v", "p", "op", "pt", "tab", "sec", "ln", "par",
)  # fmt: skip


def _numbered(match: re.Match) -> str:
    words = _BEFORE_NUMBER[match["a"].lower()]
    if match["a"] == "no" and _ANSWERED.search(before(match)) and _COUNTED.match(after(match)):
        return match[0]
    digit = match.string[match.end()].isdecimal()
    if match["a"].lower() in _ONLY_BEFORE_A_DIGIT and not digit:
        return match[0]
    return (words.capitalize() if match["a"][0].isupper() else words) + " "


def _street(match: re.Match) -> str:
    """ "St." is a saint before a name and a street after one; "Dr." a doctor before a name, a drive
    after one.
    """
    name, following = match["before"] or "", (match["after"] or "").strip()
    whole, saint = ("Street", "Saint") if match["a"] == "St" else ("Drive", "Doctor")
    start = name + match["gap"]
    named = (
        (name[:1].isupper() or name[:1].isdecimal())
        and not name.endswith(",")
        and name not in _STARTERS
        and name not in ("Mr", "Mrs", "Prof", "Professor", "And")
    )
    if named and match["gap"] == "":
        return match[0]
    if not following[:1].isupper():
        title = not named or (match["a"] == "Dr" and name in ("Thank", "Dear"))
        if match["a"] == "St" and not named and not match["dot"]:
            return match[0]
        return start + (saint if title else whole) + (_at_end(match) if match["dot"] else "")
    if match["a"] == "St" and re.fullmatch(rf"(?:{_SAINTS})(?:'s)?", following):
        return f"{start}Saint"
    if named and following in _QUARTERS and name not in ("Thank", "Dear", "The", "Miss"):
        return start + whole
    earlier = match.string[max(0, match.start() - 20) : match.start()].rstrip()
    at_start = not name or not earlier or earlier[-1] in ".!?:"
    if named and (following in _STARTERS or not at_start):
        return start + whole + ("." if match["dot"] else "")
    return f"{start}{saint}"


def _at_end(match: re.Match) -> str:
    rest = match.string[match.end("dot") : match.end("dot") + 60]
    return "." if not rest.strip(" \"')\n") or re.match(r"[\"')]*\s*\n", rest) else ""


def _initials(match: re.Match) -> str:
    letters = match["letters"].replace(".", "").upper()
    if len(letters) == 2 and letters in _SHORT_WORDS:
        letters = letters[0] + "." + letters[1]
    return letters + (_stop(match) if match["letters"].endswith(".") and _ends(match) else "")


def _ends(match: re.Match) -> bool:
    """Initials often stand before a name ("the U.S. Senate"): a sentence ends there only before a
    word that starts sentences, or at the end.
    """
    following = re.match(r"[\"')\]]*\s+[\"'(]*([A-Z][\w']*)", after(match))
    return following is None or following[1] in _STARTERS
