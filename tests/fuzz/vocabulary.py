"""Words that mean something to whoever reads a text: damage puts them where they do not belong."""


def _each(words: str) -> list[str]:
    return words.split()


FRAMES = (
    *_each("and or not in has ( ) \" ' == !~ ~ < >= , - .. x y : cpu tags memory_mb [!a-z]* *?*?*"),
    *_each("[[ 1e5 0 -5--1 forward coarse 1-10x3 7-1x2"),
    " ",
)
COMMANDS = (
    *_each("{frame} {frame:04d} {frames} {start} {end:99d} {step:} {{frame}} { } {{ }} {frame:0100d} {x}"),
    *_each("%d %04d %% #### ~ / scratch : {frame:٣d} {frame:999999999d}"),
    "#" * 200,
)
CONFIG = (
    *_each("= \" ' [ ] { } , # true false nan inf -inf 0o777 1e400 1979-05-27 07:32:00 0x _ . ~ unix:"),
    *_each("=* @ \\u0000 \\ud800 cores tags anna=admin master slave pool= root=~x DRQUEUE_UMASK= + off yes"),
    *("\n", "'''", '"""'),
)
WORDS = (
    *_each(": [ ] :: % drqueue1 node user unix: / . ( ) * +? {1,9} | \\d (?: [a-z] ^ $ (?i) \\b \\1"),
    *_each("(?P<a> (?= progress: % samples 7 Rendered frame="),
    *("Saved: '", "| Sample ", "\r", "\n", " of ", " pixels", "Rendering frame ", "2" * 300),
)
