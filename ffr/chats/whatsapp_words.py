"""What WhatsApp says in the languages of its phones: one line a language.

Exports are read by their structure first: angle brackets, marks, the names of files. These words are
for what structure does not tell.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ffr.chats.chat import Kind
from ffr.chats.dates import MARKS

# media that were left out of the export, all kinds in one word (Android), then each kind (iPhone)
_OMITTED = """
en Media omitted | image omitted | video omitted | audio omitted | sticker omitted | GIF omitted | document omitted | Contact card omitted | Video note omitted | photo omitted | voice message omitted | View once voice message omitted | View once photo omitted | View once video omitted | file omitted | picture omitted
de Medien ausgeschlossen | Medien weggelassen | Bild weggelassen | Video weggelassen | Audio weggelassen | Sticker weggelassen | GIF weggelassen | Dokument weggelassen | Kontaktkarte ausgelassen | Kontaktkarte weggelassen | Videonachricht weggelassen | Datei weggelassen
es Multimedia omitido | Archivo omitido | Archivos omitidos | imagen omitida | video omitido | vídeo omitido | audio omitido | sticker omitido | GIF omitido | documento omitido | Tarjeta de contacto omitida
pt Mídia oculta | Arquivo de mídia oculto | Mídia omitida | Ficheiro não revelado | Multimédia omitida | Ficheiro multimédia omitido | imagem ocultada | imagem omitida | imagem oculta | vídeo omitido | vídeo ocultado | áudio ocultado | áudio omitido | figurinha omitida | autocolante omitido | GIF omitido | documento omitido | Cartão do contato omitido
fr Médias omis | Fichier omis | Média omis | Médias non inclus | image absente | image omise | photo absente | vidéo absente | vidéo omise | audio omis | audio absent | sticker omis | autocollant omis | GIF retiré | GIF omis | document manquant | document omis | Fiche contact retirée
it Media omessi | Media omesso | File omesso | immagine omessa | video omesso | audio omesso | sticker non incluso | sticker omesso | GIF esclusa | GIF omessa | documento omesso | Scheda contatto omessa
nl Media weggelaten | afbeelding weggelaten | video weggelaten | audio weggelaten | sticker weggelaten | GIF weggelaten | document weggelaten | Contactkaart weggelaten
ru Без медиафайлов | Файл пропущен | Медиафайл пропущен | Медиафайлы пропущены | изображение отсутствует | изображение опущено | видео отсутствует | видео опущено | аудио отсутствует | аудиофайл отсутствует | стикер не добавлен | стикер отсутствует | GIF отсутствует | GIF опущен | документ отсутствует | документ опущен | Карточка контакта не добавлена
uk Медіа пропущено | Без медіафайлів | Файли медіа пропущено | зображення пропущено | зображення відсутнє | відео пропущено | відео відсутнє | аудіо пропущено | стікер пропущено | GIF пропущено | документ пропущено
pl pominięto multimedia | Pominięto multimedia | multimedia pominięte | plik pominięty | obraz pominięto | pominięto obraz | pominięto grafikę | grafikę pominięto | film pominięto | pominięto wideo | wideo pominięto | pominięto dźwięk | audio pominięto | pominięto audio | pominięto naklejkę | naklejkę pominięto | pominięto GIF | GIF pominięto | dokument pominięto | pominięto dokument
tr Medya dahil edilmedi | Medya atlanmış | görüntü dahil edilmedi | resim dahil edilmedi | video dahil edilmedi | ses dahil edilmedi | Çıkartma dahil edilmedi | GIF dahil edilmedi | belge dahil edilmedi | Kişi kartı dahil edilmedi
ar تم استبعاد الوسائط | الوسائط مستبعدة | الوسائط غير مدرجة | تم حذف الوسائط | الصورة غير مدرجة | تم استبعاد الصورة | تم حذف الصورة | صورة محذوفة | تم استبعاد الفيديو | الفيديو غير مدرج | مقطع الفيديو غير مدرج | تم استبعاد الصوت | المقطع الصوتي غير مدرج | الملصق غير مدرج | تم استبعاد الملصق | المستند غير مدرج | تم استبعاد المستند | الملف غير مدرج
fa رسانه حذف شد | پیوست نشده است | فایل رسانه‌ای حذف شد | تصویر حذف شد | ویدیو حذف شد | صدا حذف شد | استیکر حذف شد | سند حذف شد
he המדיה לא נכללה | המדיה הושמטה | התמונה הושמטה | התמונה לא נכללה | תמונה הושמטה | סרטון הושמט | הסרטון לא נכלל | השמע הושמט | קטע קול הושמט | מדבקה הושמטה | המדבקה הושמטה | GIF הושמט | מסמך הושמט | המסמך הושמט
hi मीडिया शामिल नहीं है | मीडिया छोड़ा गया | मीडिया के बिना | मीडिया शामिल नहीं की गई | इमेज शामिल नहीं है | चित्र छोड़ा गया | वीडियो छोड़ा गया | वीडियो शामिल नहीं है | ऑडियो छोड़ा गया | ऑडियो शामिल नहीं है | स्टिकर छोड़ा गया | स्टिकर शामिल नहीं है | दस्तावेज़ छोड़ा गया
bn মিডিয়া বাদ দেওয়া হয়েছে | মিডিয়া বাদ পড়েছে | ছবি বাদ দেওয়া হয়েছে | ভিডিও বাদ দেওয়া হয়েছে
mr मीडिया वगळले | मीडिया वगळण्यात आले
gu મીડિયા શામેલ નથી | મીડિયા છોડી દીધું
ta மீடியா விடுபட்டது | மீடியா தவிர்க்கப்பட்டது
te మీడియా విస్మరించబడింది | మీడియా మినహాయించబడింది
ml മീഡിയ ഒഴിവാക്കി
kn ಮಾಧ್ಯಮ ಕೈಬಿಡಲಾಗಿದೆ
ur میڈیا شامل نہیں | میڈیا چھوڑ دیا گیا | تصویر شامل نہیں | ویڈیو شامل نہیں
id Media tidak disertakan | Media dihilangkan | gambar tidak disertakan | gambar dihilangkan | video tidak disertakan | video dihilangkan | audio tidak disertakan | audio dihilangkan | stiker tidak disertakan | stiker dihilangkan | GIF tidak disertakan | GIF dihilangkan | dokumen tidak disertakan | dokumen dihilangkan | Kartu kontak dihilangkan
ms Media disingkirkan | Media dikecualikan | imej dikecualikan | gambar dikecualikan | video dikecualikan | audio dikecualikan | pelekat dikecualikan | dokumen dikecualikan
vi Tệp phương tiện bị bỏ qua | Bỏ qua phương tiện | Phương tiện đã bị bỏ qua | đã bỏ qua hình ảnh | hình ảnh bị bỏ qua | đã bỏ qua video | video bị bỏ qua | đã bỏ qua âm thanh | âm thanh bị bỏ qua | đã bỏ qua nhãn dán | nhãn dán bị bỏ qua | đã bỏ qua tài liệu
th ไม่รวมสื่อ | ละเว้นสื่อ | สื่อถูกละเว้น | ไม่รวมรูปภาพ | รูปภาพถูกละเว้น | ไม่รวมวิดีโอ | วิดีโอถูกละเว้น | ไม่รวมเสียง | เสียงถูกละเว้น | ไม่รวมสติกเกอร์ | สติกเกอร์ถูกละเว้น | ไม่รวมเอกสาร
zh 媒体文件已略去 | 省略多媒体文件 | 省略多媒體檔案 | 媒體檔案已略去 | 已略去多媒體檔案 | 忽略多媒体文件 | 忽略图片 | 图像已忽略 | 图片已忽略 | 图片已略去 | 圖片已略去 | 圖像已略去 | 忽略圖片 | 已省略图片 | 视频已忽略 | 忽略视频 | 影片已略去 | 忽略影片 | 音频已忽略 | 忽略音频 | 音訊已略去 | 忽略語音訊息 | 贴图已忽略 | 忽略贴图 | 表情已忽略 | 貼圖已略去 | 忽略貼圖 | 贴纸已忽略 | GIF 已忽略 | GIF已忽略 | GIF 已略去 | 忽略 GIF | 文档已忽略 | 忽略文档 | 文件已略去 | 忽略文件 | 名片已忽略 | 略過聯絡人卡片
ja メディアは含まれていません | メディアなし | メディアが省略されました | メディアは省略されました | 画像は省略されました | 画像を省略 | 画像が省略されました | 動画は省略されました | ビデオは省略されました | ビデオを省略 | 音声は省略されました | オーディオは省略されました | 音声を省略 | スタンプは省略されました | ステッカーは省略されました | GIFは省略されました | GIFを省略 | 書類は省略されました | ドキュメントは省略されました | ドキュメントを省略 | 連絡先カードは省略されました
ko 미디어 파일 제외됨 | 미디어 파일을 제외한 내보내기 | 미디어 생략됨 | 이미지 생략됨 | 사진 생략됨 | 동영상 생략됨 | 비디오 생략됨 | 오디오 생략됨 | 스티커 생략됨 | GIF 생략됨 | 문서 생략됨 | 연락처 카드 생략됨
sv Media har utelämnats | Media utelämnade | Utelämnat media | bild utelämnad | bilden utelämnades | bild utelämnas | video utelämnad | ljud utelämnat | ljud utelämnades | dekal utelämnad | klistermärke utelämnat | GIF utelämnad | dokument utelämnat
da Mediefil udeladt | Medie udeladt | Medier udeladt | billede udeladt | video udeladt | lyd udeladt | lydfil udeladt | sticker udeladt | klistermærke udeladt | GIF udeladt | dokument udeladt
nb Mediefil utelatt | Medier utelatt | Medieinnhold utelatt | bilde utelatt | bilde utelates | video utelatt | lyd utelatt | klistremerke utelatt | GIF utelatt | dokument utelatt
fi Media jätettiin pois | Mediaa ei lisätty | Media poistettu | kuva jätettiin pois | kuva puuttuu | video jätettiin pois | ääni jätettiin pois | tarra jätettiin pois | GIF jätettiin pois | asiakirja jätettiin pois | dokumentti jätettiin pois
cs Média vynechána | Média byla vynechána | Soubor byl vynechán | obrázek vynechán | obrázek byl vynechán | video vynecháno | video bylo vynecháno | audio vynecháno | nálepka vynechána | GIF vynechán | dokument vynechán
sk Médiá vynechané | Médiá boli vynechané | obrázok vynechaný | obrázok bol vynechaný | video vynechané | zvuk vynechaný | nálepka vynechaná | GIF vynechaný | dokument vynechaný
hu Hiányzó médiafájl | Média kihagyva | Médiafájl kihagyva | kép kihagyva | videó kihagyva | hang kihagyva | hangfájl kihagyva | matrica kihagyva | GIF kihagyva | dokumentum kihagyva
ro Media omise | Fișiere media omise | Conținut media omis | imagine omisă | video omis | videoclip omis | audio omis | autocolant omis | sticker omis | GIF omis | document omis
el Τα πολυμέσα παραλείφθηκαν | Παράλειψη πολυμέσων | Τα πολυμέσα εξαιρέθηκαν | η εικόνα παραλείφθηκε | εικόνα παραλείφθηκε | το βίντεο παραλείφθηκε | βίντεο παραλείφθηκε | ήχος παραλείφθηκε | αυτοκόλλητο παραλείφθηκε | έγγραφο παραλείφθηκε
bg Мултимедията е пропусната | Файлът е пропуснат | изображението е пропуснато | видеото е пропуснато | аудиото е пропуснато | стикерът е пропуснат | документът е пропуснат
hr Medijski zapis izostavljen | Medijski sadržaj izostavljen | Mediji izostavljeni | slika izostavljena | videozapis izostavljen | zvuk izostavljen | naljepnica izostavljena | dokument izostavljen
sr Медији изостављени | Mediji izostavljeni | слика изостављена | видео изостављен | документ изостављен
sl Medij izpuščen | Izpuščena medijska datoteka | slika izpuščena | videoposnetek izpuščen | dokument izpuščen
lt Medija neįtraukta | Medija praleista | vaizdas praleistas | vaizdo įrašas praleistas | dokumentas praleistas
lv Multivide izlaista | Multivide nav iekļauta | attēls izlaists | video izlaists | dokuments izlaists
et Meedia ära jäetud | Meedia välja jäetud | pilt välja jäetud | video välja jäetud | dokument välja jäetud
ca Mitjans omesos | Fitxer omès | S'han omès els fitxers multimèdia | imatge omesa | vídeo omès | àudio omès | document omès
af Media weggelaat | prent weggelaat | video weggelaat | oudio weggelaat | dokument weggelaat
sw Media imeachwa | picha imeachwa | video imeachwa
fil Inalis ang media | Hindi isinama ang media | Hindi kasama ang media
az Media çıxarılıb | Media buraxılıb | şəkil buraxılıb | video buraxılıb
kk Медиа қосылмады | сурет қосылмады | бейне қосылмады
uz Media qo‘shilmagan | rasm qo‘shilmagan
sq Media u hoq | Media e përjashtuar | imazhi u hoq
mk Медиумот е изоставен | сликата е изоставена
ga Meáin fágtha ar lár
"""

_ATTACHED = """
en file attached | attached
de Datei angehängt | Anhang
es archivo adjunto | adjunto
pt arquivo anexado | ficheiro anexado | anexado | ficheiro em anexo
fr fichier joint | pièce jointe | joint
it file allegato | allegato
nl bestand bijgevoegd | bijgevoegd
ru файл добавлен | прикреплено | прикреплён | прикрепленный файл | файл прикреплён
uk файл додано | вкладено | прикріплено
pl załączono plik | plik załączony | załączono | załączony plik
tr dosya ekli | eklendi | ekli dosya
ar الملف مرفق | مرفق | ملف مرفق
fa فایل پیوست شد | پیوست | فایل پیوست
he הקובץ צורף | מצורף | צורף | קובץ מצורף
hi फ़ाइल संलग्न है | संलग्न | फ़ाइल अटैच की गई | अटैचमेंट
id file terlampir | terlampir | lampiran
ms fail dilampirkan | dilampirkan
vi tệp đính kèm | đính kèm | tệp được đính kèm
th ไฟล์ที่แนบมา | แนบ | แนบไฟล์แล้ว | ไฟล์แนบ
zh 文件附件 | 附件 | 已附加 | 檔案附件 | 已附檔案 | 附加檔案
ja 添付ファイル | 添付 | ファイル添付
ko 파일 첨부됨 | 첨부 | 첨부 파일 | 첨부됨
sv bifogad fil | bifogad | fil bifogad
da fil vedhæftet | vedhæftet | vedhæftet fil
nb fil vedlagt | vedlagt
fi tiedosto liitteenä | liite | liitetty
cs soubor přiložen | přiloženo | přiložený soubor
sk súbor pripojený | pripojené
hu fájl csatolva | csatolva | csatolt fájl
ro fișier atașat | atașat
el συνημμένο αρχείο | συνημμένο | το αρχείο επισυνάφθηκε
bg прикачен файл | прикачен
hr datoteka u privitku | u privitku | priložena datoteka
ca fitxer adjunt | adjunt
"""

_DELETED = """
en This message was deleted | You deleted this message | This message was deleted by admin | You deleted this message as admin
de Diese Nachricht wurde gelöscht | Du hast diese Nachricht gelöscht
es Se eliminó este mensaje | Eliminaste este mensaje | Este mensaje fue eliminado | Este mensaje se eliminó | Has eliminado este mensaje | Se ha eliminado este mensaje
pt Mensagem apagada | Esta mensagem foi apagada | Você apagou esta mensagem | Apagou esta mensagem | Essa mensagem foi apagada | Eliminou esta mensagem | Esta mensagem foi eliminada
fr Ce message a été supprimé | Vous avez supprimé ce message | Message supprimé
it Questo messaggio è stato eliminato | Hai eliminato questo messaggio | Messaggio eliminato
nl Dit bericht is verwijderd | Je hebt dit bericht verwijderd | Dit bericht werd verwijderd | U hebt dit bericht verwijderd
ru Данное сообщение удалено | Сообщение удалено | Вы удалили это сообщение | Вы удалили данное сообщение | Это сообщение удалено
uk Це повідомлення видалено | Ви видалили це повідомлення | Повідомлення видалено
pl Ta wiadomość została usunięta | Wiadomość została usunięta | Usunięto tę wiadomość | Usunąłeś tę wiadomość | Ta wiadomość została skasowana
tr Bu mesaj silindi | Bu mesajı sildiniz
ar تم حذف هذه الرسالة | لقد حذفت هذه الرسالة | حذفت هذه الرسالة | أنت حذفت هذه الرسالة
fa این پیام حذف شد | این پیام حذف شده است | شما این پیام را حذف کردید
he הודעה זו נמחקה | מחקת הודעה זו | ההודעה נמחקה | מחקת את ההודעה הזו
hi यह संदेश हटाया गया | यह मैसेज डिलीट किया गया | आपने यह मैसेज डिलीट किया | आपने यह संदेश मिटाया | यह संदेश हटा दिया गया था | इस मैसेज को डिलीट कर दिया गया है
bn এই মেসেজটি মুছে ফেলা হয়েছে | আপনি এই মেসেজটি মুছে ফেলেছেন
mr हा संदेश हटवला गेला | हा मेसेज हटवला होता
ur یہ پیغام حذف کر دیا گیا | آپ نے یہ پیغام حذف کر دیا
id Pesan ini telah dihapus | Pesan ini dihapus | Anda telah menghapus pesan ini | Anda menghapus pesan ini
ms Mesej ini telah dipadam | Mesej ini dipadamkan | Anda telah memadam mesej ini
vi Tin nhắn này đã bị xóa | Bạn đã xóa tin nhắn này | Tin nhắn này đã bị xoá | Bạn đã xoá tin nhắn này
th ข้อความนี้ถูกลบแล้ว | ข้อความนี้ถูกลบ | คุณลบข้อความนี้ | คุณได้ลบข้อความนี้
zh 此消息已删除 | 这条消息已被删除 | 此訊息已刪除 | 這則訊息已刪除 | 此訊息已被刪除 | 你已删除此消息 | 您已删除此消息 | 您删除了此消息 | 你已刪除此訊息 | 您已刪除此訊息 | 您删除了这条消息 | 这条消息已删除 | 该消息已删除
ja このメッセージは削除されました | メッセージは削除されました | このメッセージを削除しました | あなたはこのメッセージを削除しました
ko 이 메시지는 삭제되었습니다 | 삭제된 메시지입니다 | 이 메시지를 삭제했습니다 | 회원님이 이 메시지를 삭제했습니다 | 이 메시지가 삭제되었습니다
sv Det här meddelandet raderades | Detta meddelande raderades | Du raderade det här meddelandet | Du raderade detta meddelande | Meddelandet har raderats
da Denne besked blev slettet | Denne besked er slettet | Du slettede denne besked
nb Denne meldingen ble slettet | Du slettet denne meldingen
fi Tämä viesti poistettiin | Poistit tämän viestin | Tämä viesti on poistettu
cs Tato zpráva byla odstraněna | Tato zpráva byla smazána | Odstranili jste tuto zprávu | Tuto zprávu jste smazali
sk Táto správa bola odstránená | Táto správa bola vymazaná | Odstránili ste túto správu
hu Ezt az üzenetet törölték | Törölted ezt az üzenetet | Ez az üzenet törölve lett | Ez az üzenet törölve
ro Acest mesaj a fost șters | Ai șters acest mesaj
el Αυτό το μήνυμα διαγράφηκε | Διαγράψατε αυτό το μήνυμα | Διαγράψατε αυτό το μήνυμα
bg Това съобщение беше изтрито | Изтрихте това съобщение | Това съобщение е изтрито
hr Ova je poruka izbrisana | Izbrisali ste ovu poruku | Ova poruka je izbrisana
sr Ова порука је избрисана | Ova poruka je izbrisana
ca S'ha eliminat aquest missatge | Has eliminat aquest missatge
fil Na-delete ang mensaheng ito | Binura ang mensaheng ito
af Hierdie boodskap is uitgevee
sw Ujumbe huu umefutwa
"""

_EDITED = """
en This message was edited
de Diese Nachricht wurde bearbeitet
es Se editó este mensaje | Este mensaje fue editado | Este mensaje se editó | Se ha editado este mensaje
pt Mensagem editada | Esta mensagem foi editada | Essa mensagem foi editada
fr Ce message a été modifié | Message modifié
it Questo messaggio è stato modificato | Messaggio modificato
nl Dit bericht is bewerkt | Dit bericht werd bewerkt
ru Сообщение изменено | Это сообщение изменено | Данное сообщение изменено
uk Це повідомлення змінено | Повідомлення відредаговано | Це повідомлення відредаговано
pl Wiadomość została zmieniona | Ta wiadomość została edytowana | Wiadomość edytowana
tr Bu mesaj düzenlendi
ar تم تعديل هذه الرسالة
fa این پیام ویرایش شد | این پیام ویرایش شده است
he הודעה זו נערכה | ההודעה נערכה
hi यह मैसेज एडिट किया गया | इस मैसेज को एडिट किया गया | यह संदेश संपादित किया गया
id Pesan ini diedit | Pesan ini telah diedit
ms Mesej ini telah disunting | Mesej ini telah diedit
vi Tin nhắn này đã được chỉnh sửa | Tin nhắn này đã chỉnh sửa
th ข้อความนี้ถูกแก้ไข | ข้อความนี้ถูกแก้ไขแล้ว
zh 此消息已编辑 | 消息已编辑 | 已编辑此消息 | 此訊息已編輯 | 已編輯此訊息 | 這則訊息已編輯 | 此消息已被编辑
ja このメッセージは編集されました | メッセージは編集されました
ko 이 메시지는 수정되었습니다 | 이 메시지가 수정되었습니다 | 수정된 메시지입니다
sv Det här meddelandet har redigerats | Det här meddelandet redigerades
da Denne besked blev redigeret | Denne besked er redigeret
nb Denne meldingen ble redigert
fi Tätä viestiä muokattiin | Tämä viesti on muokattu
cs Tato zpráva byla upravena
sk Táto správa bola upravená
hu Ezt az üzenetet szerkesztették | Ez az üzenet szerkesztve lett
ro Acest mesaj a fost editat
el Αυτό το μήνυμα υπέστη επεξεργασία
bg Това съобщение беше редактирано
hr Ova je poruka uređena
ca S'ha editat aquest missatge
"""

# a place that goes on to be shown, without an address
_LIVE_PLACES = """
en Live location shared | Live location ended
de Live-Standort geteilt | Live-Standort wird geteilt
es Ubicación en tiempo real compartida | Se compartió la ubicación en tiempo real
pt Localização em tempo real partilhada | Localização em tempo real compartilhada
fr Localisation en direct partagée | Position en direct partagée
it Posizione in tempo reale condivisa | Posizione attuale condivisa
nl Live locatie gedeeld
ru Трансляция геоданных | Передача геоданных
tr Canlı konum paylaşıldı
ar تمت مشاركة الموقع المباشر
he מיקום חי שותף
id Lokasi terkini dibagikan
zh 已分享实时位置 | 已共享实时位置 | 已分享即時位置
ja ライブ位置情報を共有しました
ko 실시간 위치 공유됨
"""

# what may be opened once, beside a word for what it was
_ONCE = (
    "view once", "einmal", "una sola vez", "visualização única", "vue unique", "visualizza una volta",
    "eenmalig", "однократн", "tek seferlik", "عرض لمرة واحدة", "sekali lihat", "一次性", "查看一次", "檢視一次",
    "1回限り", "1回のみ", "한 번 보기", "한 번만",
)  # fmt: skip

# calls: a line of the app that begins so
_CALLS = """
en Missed voice call | Missed video call | Missed group voice call | Missed group video call | Voice call | Video call | Silenced voice call | Silenced video call | Missed call | Group call | Declined voice call
de Verpasster Sprachanruf | Verpasster Videoanruf | Sprachanruf | Videoanruf | Verpasster Anruf
es Llamada perdida | Videollamada perdida | Llamada de voz | Videollamada | Llamada de voz perdida
pt Chamada de voz perdida | Chamada de vídeo perdida | Ligação de voz perdida | Ligação de vídeo perdida | Chamada perdida | Ligação de voz | Ligação de vídeo | Chamada de voz
fr Appel vocal manqué | Appel vidéo manqué | Appel manqué | Appel vocal | Appel vidéo
it Chiamata vocale persa | Videochiamata persa | Chiamata persa | Chiamata vocale | Videochiamata
nl Gemiste spraakoproep | Gemiste video-oproep | Gemiste oproep | Spraakoproep | Video-oproep
ru Пропущенный аудиозвонок | Пропущенный видеозвонок | Пропущенный звонок | Аудиозвонок | Видеозвонок
uk Пропущений голосовий виклик | Пропущений аудіодзвінок | Пропущений відеодзвінок | Пропущений виклик
pl Nieodebrane połączenie głosowe | Nieodebrane połączenie wideo | Nieodebrane połączenie
tr Cevapsız sesli arama | Cevapsız görüntülü arama | Sesli arama | Görüntülü arama | Cevapsız arama
ar مكالمة صوتية فائتة | مكالمة فيديو فائتة | مكالمة فائتة | مكالمة صوتية | مكالمة فيديو
fa تماس صوتی بی‌پاسخ | تماس تصویری بی‌پاسخ
he שיחה קולית שלא נענתה | שיחת וידאו שלא נענתה | שיחה שלא נענתה
hi मिस्ड वॉइस कॉल | मिस्ड वीडियो कॉल | छूटी हुई वॉइस कॉल | छूटी वीडियो कॉल
id Panggilan suara tak terjawab | Panggilan video tak terjawab | Panggilan tak terjawab
ms Panggilan suara terlepas | Panggilan video terlepas
vi Cuộc gọi thoại nhỡ | Cuộc gọi video nhỡ | Cuộc gọi nhỡ
th สายโทรเสียงที่ไม่ได้รับ | สายที่ไม่ได้รับ | วิดีโอคอลที่ไม่ได้รับ
zh 未接语音通话 | 未接视频通话 | 未接語音通話 | 未接視訊通話 | 未接來電 | 未接来电 | 语音通话 | 视频通话 | 語音通話 | 視訊通話 | 未接听语音通话 | 未接听视频通话
ja 不在着信 | 音声通話不在着信 | ビデオ通話不在着信 | 音声通話 | ビデオ通話 | 不在通話
ko 부재중 음성 통화 | 부재중 영상 통화 | 부재중 전화 | 음성 통화 | 영상 통화
sv Missat röstsamtal | Missat videosamtal | Röstsamtal | Videosamtal
da Mistet taleopkald | Ubesvaret taleopkald | Ubesvaret videoopkald | Mistet videoopkald
nb Tapt taleanrop | Ubesvart taleanrop | Ubesvart videoanrop | Tapt videoanrop
fi Vastaamaton äänipuhelu | Vastaamaton videopuhelu
cs Zmeškaný hlasový hovor | Zmeškaný videohovor
sk Zmeškaný hlasový hovor | Zmeškaný videohovor
hu Nem fogadott hanghívás | Nem fogadott videóhívás
ro Apel vocal pierdut | Apel video pierdut
el Αναπάντητη φωνητική κλήση | Αναπάντητη βιντεοκλήση
bg Пропуснато гласово обаждане | Пропуснато видеообаждане
hr Propušten glasovni poziv | Propušten videopoziv
ca Trucada perduda | Videotrucada perduda
"""

# the notice with which a chat begins
_NOTICES = """
en Messages and calls are end-to-end encrypted | Messages to this chat and calls are now secured | Messages you send to this chat and calls are now secured | Messages to this group are now secured | Your messages and calls are | This chat is with
de Nachrichten und Anrufe sind Ende-zu-Ende | Nachrichten in diesem Chat sowie Anrufe | Nachrichten, die du in diesem Chat
es Los mensajes y las llamadas están cifrados | Los mensajes y llamadas están cifrados | Los mensajes en este chat y
pt As mensagens e as chamadas são protegidas | As mensagens e as ligações são protegidas | As mensagens e chamadas são encriptadas | As mensagens e ligações | As mensagens desta conversa
fr Les messages et les appels sont chiffrés | Les messages et appels sont chiffrés | Les messages dans cette discussion
it I messaggi e le chiamate sono crittografati | I messaggi e le chiamate sono protetti
nl Berichten en gesprekken worden end-to-end | Berichten en oproepen worden end-to-end | Berichten en gesprekken zijn
ru Сообщения и звонки защищены | Сообщения и звонки в этом чате | Подключено сквозное шифрование
uk Повідомлення та дзвінки захищено | Повідомлення й дзвінки захищено
pl Wiadomości i połączenia są szyfrowane | Wiadomości i połączenia są w pełni
tr Mesajlar ve aramalar uçtan uca | Mesajlar ve görüşmeler uçtan uca
ar الرسائل والمكالمات مشفرة | الرسائل والمكالمات مشفَّرة
fa پیام‌ها و تماس‌ها رمزگذاری | پیام‌ها و تماس‌ها سرتاسر
he ההודעות והשיחות מוצפנות | הודעות ושיחות מוצפנות
hi मैसेज और कॉल एंड-टू-एंड | संदेश और कॉल एंड-टू-एंड
id Pesan dan panggilan dienkripsi | Pesan dan panggilan terenkripsi
ms Mesej dan panggilan disulitkan
vi Tin nhắn và cuộc gọi được mã hóa | Tin nhắn và cuộc gọi được mã hoá
th ข้อความและการโทรได้รับการเข้ารหัส | ข้อความและการโทรเข้ารหัส
zh 消息和通话都进行端到端加密 | 消息和通话已进行端到端加密 | 消息和通话均 | 訊息和通話經端對端加密 | 訊息與通話都經過端對端加密 | 訊息和通話均
ja メッセージと通話はエンドツーエンド | メッセージと通話は
ko 메시지와 통화는 종단간 | 메시지와 통화는 종단 간
sv Meddelanden och samtal är totalsträckskrypterade
da Beskeder og opkald er end-to-end
nb Meldinger og anrop er ende-til-ende
fi Viestit ja puhelut ovat täysin salattuja | Viestit ja puhelut on suojattu
cs Zprávy a hovory jsou koncově šifrovány | Zprávy a hovory jsou chráněny
sk Správy a hovory sú šifrované
hu Az üzenetek és hívások végpontok közötti | Az üzenetek és a hívások végpontok
ro Mesajele și apelurile sunt criptate
el Τα μηνύματα και οι κλήσεις
bg Съобщенията и обажданията са шифровани
hr Poruke i pozivi sveobuhvatno su | Poruke i pozivi
ca Els missatges i les trucades
"""

# by what a kind of media is known within such words: a word that begins so
_STEMS: dict[Kind, str] = {
    "picture": """
        image imagen imagem immagine bild afbeelding foto photo fotografía picture obraz grafik obráz
        изображ зображ фото görüntü resim صورة الصورة تصویر תמונה התמונה इमेज चित्र छवि ছবি gambar imej
        hình รูป 图片 图像 圖片 圖像 画像 写真 이미지 사진 εικόνα kép kuva billede bilde imagine imatge
        слика slika изображение attēl pilt vaizdas prent picha şəkil rasm сурет imazhi слик
    """,
    "video": """
        video vidéo vídeo видео відео gif film wideo فيديو الفيديو ویدیو וידאו סרטון הסרטון वीडियो ভিডিও
        วิดีโอ 视频 影片 視訊 動画 ビデオ 동영상 비디오 βίντεο videó videoposnetek бейне
    """,
    "voice": """
        audio áudio àudio аудио аудіо ses voice sprach ptt صوت الصوت صدا שמע השמע קטע ऑडियो เสียง âm 音频 音訊
        音声 語音 语音 オーディオ 오디오 음성 ääni lyd ljud zvuk hang ήχος dźwięk oudio المقطع
    """,
    "sticker": """
        sticker figurinha autocollant autocolant adesivo стикер стікер наклейка naklejk çıkartma ملصق
        الملصق استیکر מדבקה המדבקה स्टिकर สติกเกอร์ 贴图 贴纸 表情 貼圖 スタンプ ステッカー 스티커 stiker
        pelekat tarra klistermærke klistremerke klistermärke matrica nálepk αυτοκόλλητο dekal naljepnica
        nhãn
    """,
    "file": """
        document documento dokument документ belge مستند المستند سند الملف מסמך המסמך दस्तावेज़ dokumen tài
        เอกสาร 文档 文件 書類 ドキュメント 문서 asiakirja dokumentti έγγραφο dokumentum file datei
    """,
    "contact": """
        contact kontakt contatto contacto contato cartão tarjeta fiche scheda карточка kişi kartu 名片
        聯絡人 連絡先 연락처
    """,
}
_STEM_KINDS = sorted(
    ((stem, kind) for kind, stems in _STEMS.items() for stem in stems.split()),
    key=lambda pair: -len(pair[0]),
)
_NOTHING = re.compile(f"[{MARKS}<>‹›＜＞]+")


def phrase(text: str) -> str:
    r"""What a line of the app is looked up by.

    >>> phrase("\u200e<Media omitted>")
    'media omitted'
    """
    if not text.isascii() or "<" in text:
        text = _NOTHING.sub("", text)
    return " ".join(text.split()).rstrip(".。।").casefold()


def _table(said: str) -> dict[str, str]:
    """Phrase → language."""
    found: dict[str, str] = {}
    for line in said.strip().splitlines():
        language, _, phrases = line.partition(" ")
        for item in phrases.split(" | "):
            found.setdefault(phrase(item), language)
    return found


OMITTED = _table(_OMITTED)
ATTACHED = _table(_ATTACHED)
DELETED = _table(_DELETED)
EDITED = _table(_EDITED)
LIVE_PLACES = _table(_LIVE_PLACES)
_CALL_TABLE = _table(_CALLS)
_NOTICE_TABLE = _table(_NOTICES)
_BEGINS_CALL = tuple(_CALL_TABLE)
_BEGINS_NOTICE = tuple(_NOTICE_TABLE)
_NUM_TOLD = 3
_NOTICE_STARTS = frozenset(item[:_NUM_TOLD] for item in _NOTICE_TABLE)
_STARTS = frozenset(
    item[:_NUM_TOLD] for table in (OMITTED, DELETED, LIVE_PLACES, _CALL_TABLE) for item in table
)
MAX_PHRASE_CHARS = 90


def is_call(text: str, *, is_marked: bool) -> bool:
    """Whether a line tells of a call.

    Args:
        text: The line.
        is_marked: Whether it bears the mark of the app; else it must be such words alone.

    >>> is_call("Missed voice call", is_marked=False), is_call("Video call at 8?", is_marked=False)
    (True, False)
    """
    key = phrase(text[: 2 * MAX_PHRASE_CHARS])
    return key in _CALL_TABLE or (is_marked and key.startswith(_BEGINS_CALL))


def is_once(key: str) -> bool:
    """Whether words of the app tell of something that could be opened once.

    Args:
        key: The words, as `phrase` gives them.
    """
    return any(said in key for said in _ONCE)


def is_notice(text: str) -> bool:
    """Whether it is the notice of encryption, with which every chat begins."""
    if text.lstrip("\u200e\u200f")[:_NUM_TOLD].casefold() not in _NOTICE_STARTS:
        return False
    return phrase(text[: 2 * MAX_PHRASE_CHARS]).startswith(_BEGINS_NOTICE)


def may_be_of_app(text: str) -> bool:
    """Whether a line begins as one of the app's does: most lines of people do not."""
    return text.lstrip("\u200e\u200f<")[:_NUM_TOLD].casefold() in _STARTS


def language_of(text: str) -> str:
    """The language of a line of the app; "" where it is none, or unknown.

    >>> language_of("<Medien ausgeschlossen>"), language_of("hello")
    ('de', '')
    """
    if len(text) > 400:
        return ""
    key = phrase(text)
    for table in (OMITTED, DELETED, _CALL_TABLE):
        if key in table:
            return table[key]
    for begins, language in _NOTICE_TABLE.items():
        if key.startswith(begins):
            return language
    return ""


@lru_cache(maxsize=1024)
def stem_kind(text: str) -> Kind | None:
    """What kind of media words of the app name; None where they name none.

    >>> stem_kind("image omitted"), stem_kind("画像は省略されました"), stem_kind("Media omitted")
    ('picture', 'picture', None)
    """
    words = phrase(text).split()
    for stem, kind in _STEM_KINDS:
        if any(word.startswith(stem) for word in words):
            return kind
        # scripts that part no words
        if not stem.isascii() and ord(stem[0]) > 0x0E00 and any(stem in word for word in words):
            return kind
    return None
