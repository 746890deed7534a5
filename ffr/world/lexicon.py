"""The words of the sample's world.

Everyday topics in Chinese and English, sentences to put them in, names and chatter.

Every set of sentences belongs to one use (pre-training, sample, WeChat-like sample), so that a
model is never measured on the wordings it was pre-trained with.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its picture is drawn by `pictures.draw(key, …)`.

    `names` are what a query may call it.
    """

    key: str
    zh_names: tuple[str, ...]
    en_names: tuple[str, ...]
    zh_words: tuple[str, ...]
    en_words: tuple[str, ...]


_TABLE = """
pets|宠物 小动物|pets animals|小狗 猫咪 狗粮 猫砂 兽医 项圈 尾巴 爪子 遛狗 幼犬|puppy kitten leash vet collar kibble paws litter tail barking
cooking|做饭 烹饪|cooking recipes|烤箱 面粉 大蒜 锅铲 酱油 火锅 洋葱 菜谱 炖肉 面团|oven flour garlic saucepan soy hotpot onion recipe stew dough
travel|旅行 出游|travel trips|机票 酒店 护照 行李 签证 机场 导游 景点 民宿 登机|flight hotel passport luggage visa airport guide sights hostel boarding
football|足球 球赛|football soccer|进球 裁判 点球 守门员 中场 越位 联赛 角球 球门 前锋|goal referee penalty keeper midfield offside league corner striker tackle
music|音乐 唱歌|music songs|吉他 演唱会 鼓手 旋律 专辑 歌词 钢琴 耳机 提琴 合唱|guitar concert drummer melody album lyrics piano headphones violin chorus
movies|电影 影视|movies films|演员 导演 预告片 影院 续集 爆米花 剧情 首映 反派 字幕|actor director trailer cinema sequel popcorn plot premiere villain subtitles
health|看病 健康|health medicine|医生 发烧 门诊 药片 咳嗽 过敏 护士 疫苗 头疼 体检|doctor fever clinic pills cough allergy nurse vaccine headache checkup
garden|花园 园艺|gardening plants|郁金香 泥土 种子 耙子 堆肥 番茄 修枝 杂草 浇水 花盆|tulip soil seeds rake compost tomato pruning weeds watering flowerpot
cars|汽车 开车|cars driving|发动机 刹车 轮胎 修车 变速箱 里程 车库 保险杠 加油 仪表盘|engine brakes tires mechanic gearbox mileage garage bumper fuel dashboard
weather|天气 气象|weather climate|下雨 暴风 预报 雨伞 打雷 下雪 湿度 刮风 大雾 冰雹|rain storm forecast umbrella thunder snowfall humidity breeze fog hail
school|学校 上学|school studying|作业 老师 考试 论文 讲座 成绩 学期 课本 测验 校园|homework teacher exam essay lecture grades semester textbook quiz campus
fashion|衣服 穿搭|clothes fashion|裙子 外套 球鞋 围巾 靴子 布料 牛仔 衬衫 手提包 裁缝|dress jacket sneakers scarf boots fabric denim blouse handbag tailor
phones|手机 数码|phones gadgets|充电器 截屏 电池 应用 触屏 铃声 信号 流量 自拍 键盘|charger screenshot battery app touchscreen ringtone signal roaming selfie keypad
fitness|健身 锻炼|fitness exercise|深蹲 跑步机 哑铃 俯卧撑 有氧 拉伸 瑜伽 马拉松 教练 平板撑|squats treadmill dumbbell pushups cardio stretching yoga marathon trainer plank
camping|露营 野外|camping outdoors|帐篷 篝火 徒步 小径 背包 灯笼 睡袋 独木舟 指南针 山顶|tent campfire hiking trail backpack lantern sleeping canoe compass summit
money|理财 花钱|money finance|贷款 预算 存款 发票 房贷 税款 退款 工资 银行 股票|loan budget savings invoice mortgage taxes refund paycheck bank stocks
wedding|婚礼 结婚|wedding marriage|新娘 新郎 捧花 誓言 戒指 头纱 宾客 喜宴 伴娘 蜜月|bride groom bouquet vows ring veil guests banquet bridesmaid honeymoon
gaming|游戏 电玩|gaming videogames|手柄 主机 关卡 复活 联机 装备 头像 副本 像素 最高分|controller console boss respawn multiplayer loot avatar dungeon pixels highscore
coffee|咖啡 喝咖啡|coffee caffeine|拿铁 浓缩 豆子 咖啡师 杯子 卡布奇诺 研磨 奶泡 烘焙 摩卡|latte espresso beans barista mug cappuccino grinder foam roast mocha
house|装修 租房|house renting|沙发 房东 租金 油漆 地毯 水管工 屋顶 窗帘 浴室 阁楼|sofa landlord rent paint carpet plumber roof curtains bathroom attic
ocean|海边 大海|seaside ocean|冲浪 海豚 沙滩 贝壳 潮水 珊瑚 救生员 沙堡 海鸥 潜水|surfing dolphin beach shells tide coral lifeguard sandcastle seagull snorkel
space|太空 天文|space astronomy|火箭 行星 宇航员 轨道 望远镜 彗星 银河 月球 卫星 流星|rocket planet astronaut orbit telescope comet galaxy moon satellite meteor
books|读书 看书|books reading|小说 作者 章节 平装本 图书馆 诗歌 书签 出版社 传记 书架|novel author chapter paperback library poem bookmark publisher biography bookshelf
birthday|生日 庆生|birthday celebration|蛋糕 蜡烛 气球 礼物 请柬 彩带 纸杯糕 惊喜 许愿 派对|cake candles balloons presents invitation confetti cupcake surprise wish party
"""


def _topics() -> tuple[Topic, ...]:
    found = []
    for line in _TABLE.strip().splitlines():
        key, *lists = line.split("|")
        zh_names, en_names, zh_words, en_words = (tuple(words.split()) for words in lists)
        found.append(Topic(key, zh_names, en_names, zh_words, en_words))
    return tuple(found)


TOPICS = _topics()
LANGUAGES = ("zh", "en")


@dataclass(frozen=True, slots=True)
class Wording:
    """The sentences of one use in one language.

    `{0}` and `{1}` stand for words of the topic, `{n}` for a name.
    """

    lines: tuple[str, ...]
    follow_ups: tuple[str, ...]
    fillers: tuple[str, ...]
    queries: tuple[str, ...]
    names: tuple[str, ...]


def _split(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().split("|"))


WORDINGS: dict[tuple[str, str], Wording] = {
    ("base", "zh"): Wording(
        lines=_split(
            "我很喜欢这个{0}|你看到{0}了吗|{0}和{1}都很好|昨天我买了{0}|我想要一个新的{0}|这个{0}太贵了|谁告诉你{0}的事|我找到了{0}还有{1}|"
            "{0}比{1}好多了|明天别忘了{0}|我妹妹也想要{0}|那个{0}多少钱|我们的{0}有问题|我需要{0}和{1}|你看这个{0}|我没试过{0}|"
            "{0}还在那里吗|他们有一个大的{0}|我朋友说{0}不好|以前的{0}很好看|关于{0}我不知道|今天又是{0}|为了{0}我们等了很久|说到{0}我想起{1}"
        ),
        follow_ups=_split(
            "是的很好|看起来不错|我也喜欢|真的吗再说说|太好了|太贵了吧|不会吧|多少钱|谁说的|晚点发给我"
        ),
        fillers=_split("早上好|你好在吗|对不起刚才忙|好的回头聊|哈哈|等一下|嗯好|晚上见"),
        queries=_split("{0}|关于{0}|找{0}|说到{0}的内容|和{0}有关的|有关{0}和{1}的对话|{0}以及{1}"),
        names=(),
    ),
    ("base", "en"): Wording(
        lines=_split(
            "i really like this {0}|did you see the {0}|the {0} and the {1} were great|i bought a "
            "{0} yesterday|i want a new {0}|this {0} is too expensive|"
            "who told you about the {0}|i found a {0} with a {1}|the {0} was better than the "
            "{1}|do not forget the {0} tomorrow|my sister wants a {0} too|"
            "how much was that {0}|we had a problem with the {0}|i need the {0} and my {1}|look at "
            "this {0}|i never tried a {0} before|is the {0} still there|"
            "they have a big {0} now|my friend said the {0} is bad|the old {0} looks nice|i know "
            "nothing about the {0}|it is the {0} again today|"
            "we waited long for the {0}|the {0} reminds me of the {1}"
        ),
        follow_ups=_split(
            "yes that was so nice|it looks great|i like it too|really tell me more|that is so "
            "good|it was too expensive|no way|how much was it|who said that|send it to me later"
        ),
        fillers=_split(
            "good morning|hello are you there|sorry i was busy|ok talk soon|haha|one minute|hmm "
            "ok|see you tonight"
        ),
        queries=_split(
            "{0}|about {0}|find {0}|the part about {0}|anything related to {0}|messages on {0} and "
            "{1}|{0} and {1}"
        ),
        names=(),
    ),
    ("sample", "zh"): Wording(
        lines=_split(
            "{n}说新的{0}今天到了|我觉得{0}还不错|周末一起去看{0}吧|你的{0}是在哪里买的|我们家的{0}坏了怎么办|昨天的{0}真好|有人喜欢{0}吗|我更想要{1}不是{0}|"
            "{n}问我要不要{0}|别忘了带{0}和{1}|这里的{0}很便宜|我朋友有两个{0}|{0}的照片我发给你|刚才一直在说{0}|我想再看看{0}|上次的{1}也很好"
        ),
        follow_ups=_split(
            "好啊我也想|那太好了|真的很不错|我觉得可以|下次一起吧|你说得对|我再想想|明天告诉你"
        ),
        fillers=_split("你好呀|在忙吗|我先去吃饭|回来了|嗯嗯|好的好的|今天好累|晚安"),
        queries=_split(
            "和{0}有关的聊天内容|找出关于{0}的部分|他们什么时候说到{0}|有关{0}和{1}的句子和图片|把说{0}的消息都找出来|聊到{0}的地方"
        ),
        names=("小王", "小李", "阿明", "小红", "老张"),
    ),
    ("sample", "en"): Wording(
        lines=_split(
            "{n} said the new {0} came today|i think the {0} is not bad|we should go and see the "
            "{0} on sunday|where did you get your {0}|our {0} is broken again|"
            "that {0} was really good yesterday|does anyone like the {0}|i would take the {1} and "
            "not the {0}|{n} asked me about the {0}|bring the {0} and the {1} please|"
            "the {0} is cheap here|my friend has two of the {0}|i will send you the {0} later|they "
            "talked about the {0} all day|let me look at the {0} again|the last {1} was good too"
        ),
        follow_ups=_split(
            "oh nice i want that too|that is great|really not bad|i think we can do that|let us go "
            "next time|you are right|let me think about it|i will tell you tomorrow"
        ),
        fillers=_split(
            "hi there|are you busy|i have to go and eat|i am back now|hmm|ok ok|so tired "
            "today|good night"
        ),
        queries=_split(
            "the chat about {0}|find the part related to {0}|when did they talk about {0}|messages "
            "and pictures on {0} and {1}|everything said about {0}|where they mention {0}"
        ),
        names=("tom", "anna", "mike", "lucy", "jack"),
    ),
    ("wechat", "zh"): Wording(
        lines=_split(
            "哎{n}你那个{0}弄好了没|我跟你说{0}这事真的烦|{0}啊我早就看过了|群里谁要{0}|刚路过看到{0}在打折|{n}又在聊{0}了|{0}先放一放说说{1}|我把{0}发群里了|"
            "周五之前要定{0}|老板也问过{0}|要不换成{1}吧{0}不行|{0}这个价格可以的|有{0}的链接吗|听说{0}涨价了"
        ),
        follow_ups=_split("笑死我了|可以可以|我也是这么想的|啊这|收到|行吧那就这样|等我看看|绝了"),
        fillers=_split(
            "有人吗|在开会|哈哈哈哈|我先撤了|[表情]|[语音]|吃了没|刚下班|困死了|今天好堵|回头说|嗯呐"
        ),
        queries=_split(
            "群里讨论{0}的那段|谁提到过{0}|之前聊{0}时发的消息和图|关于{0}大家说了什么|{0}那件事"
        ),
        names=("大刘", "娜姐", "阿强", "陈总", "胖子", "晓晓"),
    ),
    ("wechat", "en"): Wording(
        lines=_split(
            "hey {n} is your {0} done yet|ugh the {0} thing is so annoying|oh the {0} i saw that "
            "ages ago|who here wants the {0}|just walked by and the {0} was on sale|"
            "{n} keeps talking about the {0}|forget the {0} tell me about the {1}|i put the {0} in "
            "the group|we must decide on the {0} before friday|"
            "maybe take the {1} if the {0} fails|the price of the {0} is fine|got a link for the "
            "{0}|heard the {0} got more expensive"
        ),
        follow_ups=_split(
            "lol i am dead|works for me|same here|oh well|got it|fine then|let me check|amazing"
        ),
        fillers=_split(
            "anyone here|in a meeting|hahaha|gotta run|[sticker]|[voice]|had lunch yet|just left "
            "work|so sleepy|traffic is bad|later|yep"
        ),
        queries=_split(
            "where the group discussed {0}|who mentioned {0}|messages and pictures from the {0} "
            "talk|what people said about {0}|that {0} thing"
        ),
        names=("bob", "nina", "chen", "raj", "zoe", "max"),
    ),
}
"""By (use, language)."""
