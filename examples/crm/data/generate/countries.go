package main

import "strings"

// country is how people of a country are called, reached and noted down.
type country struct {
	code      string // ISO 3166
	weight    int    // percent of the people
	first     []string
	last      []string
	women     []string // first names, if family names have a form for women
	lastWomen []string
	fathers   []string // stems that patronymics are made of
	cities    []string
	forms     []string // of companies
	firms     []string
	prefixes  []string // of national numbers
	digits    int      // in a national number
	shapes    []string // of typed numbers, a sign "#" for each national digit
	notes     []string
}

// The numbers of Germany, Great Britain and the United States come from ranges
// that their regulators keep for films: Bundesnetzagentur's Drama numbers, Ofcom's
// numbers for TV and radio drama, NANPA's 555-01XX. The other countries have no
// such ranges; their numbers are random.
var countries = []country{
	{
		code: "RU", weight: 50,
		first:     words("Александр Дмитрий Максим Сергей Андрей Алексей Артём Илья Кирилл Михаил Никита Матвей Роман Егор Арсений Иван Денис Евгений Тимофей Владислав Игорь Владимир Павел Руслан Марк Константин Тимур Олег Ярослав Антон Николай Глеб Данил Савелий Вадим Степан Юрий Богдан Артур Семён"),
		last:      words("Иванов Смирнов Кузнецов Попов Васильев Петров Соколов Михайлов Новиков Фёдоров Морозов Волков Алексеев Лебедев Семёнов Егоров Павлов Козлов Степанов Николаев Орлов Андреев Макаров Никитин Захаров Зайцев Соловьёв Борисов Яковлев Григорьев Романов Воробьёв Сергеев Кузьмин Фролов Александров Дмитриев Королёв Гусев Киселёв Ильин Максимов Поляков Сорокин Виноградов Ковалёв Белов Медведев Антонов Тарасов"),
		women:     words("Анна Мария Елена Дарья Анастасия Екатерина Виктория Ольга Наталья Юлия Татьяна Светлана Ирина Ксения Алина Елизавета Полина Марина Софья Вера Надежда Любовь Галина Людмила Валентина Нина Кристина Яна Маргарита Диана"),
		lastWomen: words("Иванова Смирнова Кузнецова Попова Васильева Петрова Соколова Михайлова Новикова Фёдорова Морозова Волкова Алексеева Лебедева Семёнова Егорова Павлова Козлова Степанова Николаева Орлова Андреева Макарова Никитина Захарова Зайцева Соловьёва Борисова Яковлева Григорьева Романова Воробьёва Сергеева Кузьмина Фролова Королёва Гусева Киселёва Ильина Максимова"),
		fathers:   words("Александр Иван Олег Антон Владимир Степан Роман Максим Денис Павл Михайл Семён"),
		cities:    list("Москва, Санкт-Петербург, Новосибирск, Екатеринбург, Казань, Нижний Новгород, Самара, Омск, Ростов-на-Дону, Уфа, Пермь, Воронеж, Тула, Томск"),
		forms:     list("ООО «%s», АО «%s», ИП %s, %s"),
		firms:     list("Ромашка, Вектор, Альфа, Северный ветер, Техносила, Импульс, Стройдом, Маяк, Орион, Каскад, Лесной двор, Горизонт, Меридиан, Заря, Прогресс"),
		prefixes:  words("903 905 909 910 912 915 916 917 920 921 925 926 927 950 960 964 977 981 985 999 495 499 812 343 383"),
		digits:    10,
		shapes: []string{
			"+7 (###) ###-##-##", "+7 ### ###-##-##", "+7##########", "+7(###)#######", "8 (###) ###-##-##", "8##########", "8-###-###-##-##",
			"8 ### ### ## ##", "##########", "(###) ###-##-##", "7##########", "+7\u00a0###\u00a0###–##–##", "8(###)###-##-##", "+7 ### ### ## ##",
			"8 (###) ###-##-## доб. 12", "тел. 8 ### ###-##-##",
		},
		notes: russianNotes,
	},
	{
		code: "KZ", weight: 12,
		first:     words("Нурлан Ержан Асхат Бауыржан Данияр Айдар Серик Тимур Арман Ерлан Канат Руслан Болат Мурат"),
		last:      words("Ахметов Нурланов Сулейменов Касымов Оспанов Жумабаев Искаков Абдрахманов Ибраев Сагинтаев Бекович Тлеубай Омарулы Серикбай Кенжебек"),
		women:     words("Айгуль Динара Жанар Мадина Асель Гульнара Алия Сауле Камила Аружан Айжан Жанна Назгуль Сания"),
		lastWomen: words("Ахметова Нурланова Сулейменова Касымова Оспанова Жумабаева Искакова Абдрахманова Ибраева Сагинтаева Тлеубай Серикбай Кенжебек"),
		cities:    list("Алматы, Астана, Шымкент, Караганда, Актобе, Павлодар"),
		forms:     list("ТОО «%s», АО «%s», ИП %s"),
		firms:     list("Алтын, Достык, Самрук, Жетысу, Астана Трейд, Тулпар, Сункар, Байтерек"),
		prefixes:  words("700 701 702 705 707 708 747 771 775 776 777 778 727 717"), digits: 10,
		shapes: []string{"+7 (###) ###-##-##", "8 (###) ###-##-##", "+7##########", "8##########", "+7 ### ### ## ##", "8 ### ###-##-##", "##########"},
		notes:  russianNotes,
	},
	{
		code: "UA", weight: 10,
		first:    words("Олександр Андрій Сергій Дмитро Іван Тарас Богдан Василь Юрій Остап Олена Ірина Оксана Наталія Тетяна Юлія Марія Ганна Софія Соломія"),
		last:     words("Шевченко Бондаренко Коваленко Ткаченко Кравченко Олійник Лисенко Марченко Поліщук Мельник Савченко Руденко Гриценко Петренко Кравчук Іщенко Білоус"),
		cities:   list("Київ, Львів, Одеса, Харків, Дніпро, Полтава, Чернівці"),
		forms:    list("ТОВ «%s», ПП «%s», ФОП %s"),
		firms:    list("Калина, Світанок, Дніпро, Карпати, Добробут, Промінь, Веселка"),
		prefixes: words("50 63 66 67 68 73 93 95 96 97 98 99 44 32"), digits: 9,
		shapes: []string{"+380 (##) ###-##-##", "+380#########", "+38 (0##) ###-##-##", "0## ### ## ##", "0#########", "(0##) ###-##-##", "8 (0##) ###-##-##", "+380 ## ### ## ##"},
		notes: []string{
			"передзвонити у вівторок", "постійний клієнт", "просить рахунок на пошту", "другий телефон {phone}", "знижка {n}%",
			"оплата карткою {card}", "після 18:00 не дзвонити", "договір № 2024-0{n}", "дружина: {phone}",
		},
	},
	{
		code: "BY", weight: 8,
		first:    words("Алесь Андрэй Віктар Дзмітрый Ігар Мікалай Павел Сяргей Янка Уладзімір Алена Вольга Ганна Ірына Кацярына Марыя Наталля Святлана Тацяна Юлія"),
		last:     words("Кавалёнак Дубіна Навумчык Багдановіч Караткевіч Лукашэвіч Мацкевіч Жук Гурыновіч Станкевіч Кулеш Міцкевіч Сянкевіч Клімовіч Ляўковіч"),
		cities:   list("Мінск, Гомель, Гродна, Брэст, Віцебск, Магілёў"),
		forms:    list("ТАА «%s», ЧУП «%s», ІП %s"),
		firms:    list("Белая Русь, Нёман, Лясны, Крыніца, Дажынкі, Зубр, Валошка"),
		prefixes: words("25 291 292 293 295 296 297 299 33 44 17"), digits: 9,
		shapes: []string{"+375 (##) ###-##-##", "+375 ## ###-##-##", "+375#########", "8 (0##) ###-##-##", "80#########", "8 0## ### ## ##"},
		notes:  russianNotes,
	},
	{
		code: "DE", weight: 8,
		first:    words("Lukas Leon Finn Jonas Paul Felix Maximilian Jürgen Günther Björn Emma Mia Hannah Sophia Lena Käthe Anke Sabine Ursula Jana"),
		last:     words("Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Schäfer Koch Bauer Richter Klein Wolf Schröder Neumann Schwarz Groß Weiß"),
		cities:   list("Berlin, Hamburg, München, Köln, Frankfurt am Main, Leipzig, Düsseldorf"),
		forms:    list("%s GmbH, %s AG, %s KG, %s & Söhne"),
		firms:    list("Bergmann, Nordlicht, Altstadt Bau, Sonnenhof, Brückner, Rheingold, Waldner"),
		prefixes: words("3023125 6990009 4066969 8999998"), digits: 10,
		shapes: []string{"+49 ## ########", "+49 (0)## ########", "0## ########", "0##/########", "0049 ## ### ## ###", "+49##########", "(0##) #####-###", "0##########"},
		notes: []string{
			"Rückruf am Dienstag", "Stammkunde", "Rechnung per E-Mail", "zweite Nummer {phone}", "Rabatt {n}%", "Kreditkarte {card}",
			"nicht vor 10:00 anrufen", "Angebot Nr. 2024-1{n}", "privat: {phone}",
		},
	},
	{
		code: "GB", weight: 6,
		first:    words("Oliver George Harry Jack Charlie Thomas James William Arthur Rhys Amelia Isla Ava Emily Grace Poppy Ella Siobhan Chloe Imogen"),
		last:     words("Smith Jones Taylor Brown Williams Wilson Johnson Davies Robinson Wright Thompson Evans Walker White Roberts Green O'Connor Hughes Clarke Patel"),
		cities:   list("London, Manchester, Birmingham, Leeds, Edinburgh, Bristol, Cardiff"),
		forms:    list("%s Ltd, %s plc, %s & Sons, The %s Company"),
		firms:    list("Harbour, Redwood, Ashford, Kingsley, Bluebell, Northgate, Thornton"),
		prefixes: words("7700900 7700900 2079460 1614960 1214960 1314960 1134960"), digits: 10,
		shapes: []string{"0#### ######", "+44 #### ######", "+44 (0)#### ######", "0##########", "+44##########", "0044 #### ######", "0#### ### ###"},
		notes:  englishNotes,
	},
	{
		code: "US", weight: 6,
		first:    words("Liam Noah James Elijah Mateo Lucas Henry Ethan Jackson Carlos Olivia Emma Charlotte Amelia Sophia Isabella Mia Evelyn Harper Camila"),
		last:     words("Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez Wilson Anderson Thomas Moore Jackson Lee Nguyen"),
		cities:   list("New York, Chicago, Houston, Seattle, Boston, Denver, Austin, Portland"),
		forms:    list("%s Inc., %s LLC, %s Corp., %s"),
		firms:    list("Cascade, Summit, Lakeside, Pioneer, Ironwood, Silverline, Oakmont"),
		prefixes: prefixed("55501", words("212 312 713 206 617 303 512 503 415 646 305 404 702 619 702 480 216 615 704 813")), digits: 10,
		shapes: []string{"(###) ###-####", "###-###-####", "+1 ### ### ####", "1-###-###-####", "+1##########", "###.###.####", "+1 (###) ###-####", "(###) ###-#### ext 12", "##########"},
		notes:  englishNotes,
	},
}

var russianNotes = []string{
	"перезвонить во вторник", "постоянный клиент", "просит счёт на почту", "второй телефон {phone}", "скидка {n}%", "оплата картой {card}",
	"после 18:00 не звонить", "договор № 2024-00{n}", "жена: {phone}", "был на встрече 12.03.2025, думает", "хочет рассрочку на {n} мес.",
	"бюджет 1 500 000 руб.", "• ждёт договор\n• любит \"точность\", цифры", "карта {card}, срок 12/27", "звонить через секретаря: {phone}",
}

var englishNotes = []string{
	"call back on Tuesday", "regular customer", "wants the invoice by mail", "second phone {phone}", "discount {n}%", "paid with {card}",
	"do not call before 10:00", "order 2024-1{n}", "assistant: {phone}", "budget $25,000.00", "met on 2025-03-12, \"thinking\"",
}

func words(s string) []string { return strings.Fields(s) }

func list(s string) []string { return strings.Split(s, ", ") }

func prefixed(end string, starts []string) []string {
	for i := range starts {
		starts[i] += end
	}
	return starts
}

func (g *generator) country() *country {
	n := g.n(100)
	for i := range countries {
		if n -= countries[i].weight; n < 0 {
			return &countries[i]
		}
	}
	return &countries[0]
}

func patronymic(stem string, woman bool) string {
	if woman {
		return stem + "овна"
	}
	return stem + "ович"
}

var latinOf = strings.NewReplacer(
	"а", "a", "б", "b", "в", "v", "г", "g", "ґ", "g", "д", "d", "е", "e", "ё", "e", "є", "ie", "ж", "zh", "з", "z", "и", "i", "і", "i", "ї", "i",
	"й", "y", "к", "k", "л", "l", "м", "m", "н", "n", "о", "o", "п", "p", "р", "r", "с", "s", "т", "t", "у", "u", "ў", "u", "ф", "f", "х", "kh",
	"ц", "ts", "ч", "ch", "ш", "sh", "щ", "sch", "ъ", "", "ы", "y", "ь", "", "э", "e", "ю", "yu", "я", "ya",
	"ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss", "'", "",
)

// latin spells a name as it stands in a mail address.
func latin(name string) string { return latinOf.Replace(strings.ToLower(name)) }
