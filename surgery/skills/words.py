"""Words and names for items: short and common, so that most tokenizers have each as one token."""

_WORDS = """
apple bird boat book bread bridge candle chair clock cloud coat coin corn door dress dust farm
field fire fish flag flower forest garden glass gold grass hand hat horse house iron island key
king lake lamp leaf letter milk moon mountain mouse night paper pencil pipe queen rain ring river
road rock roof rope salt school seed ship shoe silk silver snow soap song spoon star stone storm
sugar sun table tower train tree wall water wheel wind wing wine winter wood wool
"""
_NAMES = """
Adam Alice Anna Ben Carl Clara David Emma Frank George Helen Henry Jack James Jane John Laura Lucy
Mark Mary Paul Peter Robert Sarah Susan Thomas
"""
WORDS = tuple(_WORDS.split())
NAMES = tuple(_NAMES.split())
