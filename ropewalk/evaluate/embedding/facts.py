"""A hundred facts of many domains, each with the question that asks for it: the needles of LongEmbed's needle task.

LongEmbed had GPT-4 write its hundred ("a variety of domains including physics, history, geometry, art"); these are our
own, of the same kind: general knowledge, one sentence, and a question that shares its subject but not its answer.
"""

_FACTS = """
Who painted the Mona Lisa? | The Mona Lisa was painted by Leonardo da Vinci.
Who wrote the novel Don Quixote? | The novel Don Quixote was written by Miguel de Cervantes.
What is the capital of Mongolia? | The capital of Mongolia is Ulaanbaatar.
What is the chemical symbol of tungsten? | The chemical symbol of tungsten is W.
How is the area of a circle computed? | The area of a circle is pi times the square of its radius.
Which planet has the most moons? | Saturn is the planet with the most known moons.
Who composed the opera The Magic Flute? | The opera The Magic Flute was composed by Wolfgang Amadeus Mozart.
What is the largest organ of the human body? | The largest organ of the human body is the skin.
Who discovered penicillin? | Penicillin was discovered by Alexander Fleming in 1928.
How many hearts does an octopus have? | An octopus has three hearts.
What is the longest river in South America? | The longest river in South America is the Amazon.
Who formulated the three laws of motion? | The three laws of motion were formulated by Isaac Newton.
What is the deepest lake in the world? | The deepest lake in the world is Lake Baikal in Siberia.
Who sculpted the statue of The Thinker? | The statue of The Thinker was sculpted by Auguste Rodin.
What is the boiling point of nitrogen? | Nitrogen boils at minus 196 degrees Celsius.
What is the sum of the angles of a triangle? | The angles of a triangle add up to 180 degrees.
Who invented the telephone? | The telephone was patented by Alexander Graham Bell in 1876.
What is the smallest bird in the world? | The smallest bird in the world is the bee hummingbird of Cuba.
In which year did the Titanic sink? | The Titanic sank in the North Atlantic in 1912.
Which gas do plants absorb for photosynthesis? | For photosynthesis plants absorb carbon dioxide.
Who was the first person to walk on the Moon? | Neil Armstrong was the first person to walk on the Moon.
What is the currency of Japan? | The currency of Japan is the yen.
Which metal is liquid at room temperature? | Mercury is the metal that is liquid at room temperature.
Who wrote the play Hamlet? | The play Hamlet was written by William Shakespeare.
What is the hardest natural mineral? | Diamond is the hardest natural mineral.
How many strings does a violin have? | A violin has four strings.
Where is the Great Barrier Reef? | The Great Barrier Reef lies off the coast of Queensland in Australia.
Who developed the theory of general relativity? | The theory of general relativity was developed by Albert Einstein.
What is the fastest land animal? | The cheetah is the fastest land animal.
Which element has the atomic number one? | Hydrogen is the element with the atomic number one.
Who painted The Starry Night? | The Starry Night was painted by Vincent van Gogh.
What is the square root of 144? | The square root of 144 is twelve.
When did the Berlin Wall fall? | The Berlin Wall fell in November 1989.
What is the main ingredient of guacamole? | Guacamole is made mainly of avocado.
Who wrote the novel Moby-Dick? | The novel Moby-Dick was written by Herman Melville.
Which organ produces insulin? | Insulin is produced by the pancreas.
What is the tallest mountain in Africa? | Kilimanjaro in Tanzania is the tallest mountain in Africa.
How many sides does a dodecagon have? | A dodecagon is a polygon with twelve sides.
Who composed The Four Seasons? | The Four Seasons are violin concertos composed by Antonio Vivaldi.
What is the speed of light? | Light travels at about 299,792 kilometres per second.
Which country gave the Statue of Liberty to the United States? | The Statue of Liberty was a gift of France.
What is the study of earthquakes called? | The study of earthquakes is called seismology.
Who discovered radium? | Radium was discovered by Marie and Pierre Curie.
What do pandas eat? | Giant pandas feed almost only on bamboo.
Which ocean is the largest? | The Pacific is the largest ocean on Earth.
Who built the first practical steam engine? | The first practical steam engine was built by Thomas Newcomen.
What is the volume of a sphere? | The volume of a sphere is four thirds pi times the cube of its radius.
Which language is spoken in Brazil? | The language spoken in Brazil is Portuguese.
Who wrote War and Peace? | War and Peace was written by Leo Tolstoy.
How many bones does an adult human have? | The skeleton of an adult human has 206 bones.
What is the chemical formula of table salt? | Table salt is sodium chloride, NaCl.
Who designed the Sagrada Familia? | The Sagrada Familia in Barcelona was designed by Antoni Gaudi.
Which planet is called the red planet? | Mars is called the red planet because of its rust.
When was the Magna Carta signed? | The Magna Carta was sealed at Runnymede in 1215.
What is the largest desert on Earth? | Antarctica is by area the largest desert on Earth.
Who invented the printing press in Europe? | Johannes Gutenberg brought movable type printing to Europe.
What is a group of lions called? | A group of lions is called a pride.
Which vitamin does sunlight give us? | Sunlight on the skin makes vitamin D.
Who wrote the Ninth Symphony with the Ode to Joy? | The Ninth Symphony with the Ode to Joy is by Ludwig van Beethoven.
What is the capital of New Zealand? | The capital of New Zealand is Wellington.
How long is a marathon? | A marathon is run over 42.195 kilometres.
Who proposed evolution by natural selection? | Evolution by natural selection was proposed by Charles Darwin.
What is the unit of electrical resistance? | Electrical resistance is measured in ohms.
Which bird cannot fly but swims well? | Penguins are birds that cannot fly but swim well.
Who painted Guernica? | Guernica was painted by Pablo Picasso in 1937.
What is the Pythagorean theorem? | In a right triangle the squares of the legs add up to that of the hypotenuse.
Who was the first emperor of Rome? | Augustus was the first emperor of Rome.
What is the most abundant gas in the atmosphere? | Nitrogen is the most abundant gas in the atmosphere of Earth.
Where was coffee first grown? | Coffee was first grown in Ethiopia.
Who wrote Pride and Prejudice? | Pride and Prejudice was written by Jane Austen.
How many teeth does a grown dog have? | A grown dog has 42 teeth.
What is the capital of Canada? | The capital of Canada is Ottawa.
Which acid is in the stomach? | The stomach contains hydrochloric acid.
Who discovered the structure of DNA? | The double helix of DNA was described by Watson and Crick in 1953.
What is the largest island in the world? | Greenland is the largest island in the world.
Which instrument measures air pressure? | Air pressure is measured with a barometer.
Who led the salt march in India? | The salt march of 1930 in India was led by Mahatma Gandhi.
What is the freezing point of water in Fahrenheit? | Water freezes at 32 degrees Fahrenheit.
How many keys does a piano have? | A standard piano has 88 keys.
Which city hosted the 1896 Olympic Games? | The Olympic Games of 1896 were held in Athens.
Who wrote the Divine Comedy? | The Divine Comedy was written by Dante Alighieri.
What is the closest star to the Sun? | Proxima Centauri is the star closest to the Sun.
Which mammal lays eggs? | The platypus is a mammal that lays eggs.
Who invented dynamite? | Dynamite was invented by Alfred Nobel.
What is the largest country by area? | Russia is the largest country by area.
How is the circumference of a circle computed? | The circumference of a circle is two pi times its radius.
Who composed the ballet Swan Lake? | The ballet Swan Lake was composed by Pyotr Tchaikovsky.
What is the pH of pure water? | Pure water has a pH of seven.
When did the French Revolution begin? | The French Revolution began in 1789.
Which insect makes honey? | Honey is made by bees from nectar.
Who painted the ceiling of the Sistine Chapel? | The ceiling of the Sistine Chapel was painted by Michelangelo.
What is the capital of Egypt? | The capital of Egypt is Cairo.
Which blood type is the universal donor? | Type O negative is the universal donor of blood.
Who wrote One Hundred Years of Solitude? | One Hundred Years of Solitude was written by Gabriel Garcia Marquez.
What causes the tides? | The tides are caused mostly by the gravity of the Moon.
How many players has a football team on the field? | A football team has eleven players on the field.
Who was the first woman in space? | Valentina Tereshkova was the first woman in space.
What is the rarest natural element? | Astatine is the rarest natural element in the crust of the Earth.
Which wood is the lightest? | Balsa is the lightest wood in commercial use.
Who founded the Mongol Empire? | The Mongol Empire was founded by Genghis Khan.
"""

FACTS: tuple[tuple[str, str], ...] = tuple(
    (question, statement) for question, _, statement in (line.partition(" | ") for line in _FACTS.strip().split("\n"))
)
"""(question, statement) of each."""
