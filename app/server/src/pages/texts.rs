//! Every text of the pages, in both languages, in one table: a text that lacks a language does not
//! compile.
//!
//! `{n}`, `{min}` and the like stand for what the page puts in. The words are those of people who
//! pay, not of those who build: no protocol is named.

use super::lang::Lang;

macro_rules! texts {
    ($($key:ident { $en:literal $zh:literal })+) => {
        /// The key of a text; its name is also the key under which scripts find it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(clippy::enum_variant_names, reason = "a heading's text is named after it")]
        pub(crate) enum Text {
            $(
                #[doc = $en]
                $key,
            )+
        }

        impl Text {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$key),+];

            /// The key's name.
            pub(crate) const fn key(self) -> &'static str {
                match self {
                    $(Self::$key => stringify!($key),)+
                }
            }

            /// The text.
            pub(crate) const fn of(self, lang: Lang) -> &'static str {
                match (self, lang) {
                    $(
                        (Self::$key, Lang::En) => $en,
                        (Self::$key, Lang::Zh) => $zh,
                    )+
                }
            }
        }
    };
}

texts! {
    // Every page.
    Language { "Language" "语言" }
    SkipToContent { "Skip to the content" "跳到主要内容" }
    NeedsScript {
        "This page needs JavaScript. Turn it on in your browser and load the page again."
        "本页面需要 JavaScript，请在浏览器中启用后重新打开。"
    }
    Loading { "Loading…" "正在加载…" }
    Offline {
        "No connection to the server. What you see may be out of date; we keep trying."
        "无法连接服务器，页面内容可能不是最新的，正在重新连接。"
    }
    OnlineAgain { "Connected again." "已重新连接。" }
    LoadFailed { "The page could not be loaded. Please try again." "页面加载失败，请重试。" }
    TryAgain { "Try again" "重试" }
    TooMany {
        "There were too many requests. Wait a minute and try again."
        "操作过于频繁，请稍候一分钟再试。"
    }
    ServerTrouble {
        "The server cannot do this right now. Please try again in a moment."
        "服务器暂时无法处理，请稍后再试。"
    }
    NeedsSecureContext {
        "This page works over a secure connection only. Open it with an address that begins with \
         https://."
        "本页面只能通过安全连接使用，请使用以 https:// 开头的网址打开。"
    }
    NeedsStorage {
        "This browser does not let the page keep its key. Leave private browsing, or allow the \
         page to store data."
        "浏览器不允许本页面保存密钥。请退出无痕模式，或允许本网站保存数据。"
    }

    // The phone: to be connected.
    PhoneTitle { "My payments" "我的付款" }
    EnrolTitle { "Connect this phone" "绑定本手机" }
    EnrolIntro {
        "Your bank gave you a code of 24 letters and digits. Type it in to see and confirm your \
         payments here. It works once."
        "请输入银行提供的 24 位绑定码（字母和数字）。绑定后即可在本机查看并确认付款。绑定码只能使用一次。"
    }
    CodeLabel { "Code from your bank" "银行提供的绑定码" }
    CodeHint { "For example ABCD-EFGH-…; hyphens may be left out." "例如 ABCD-EFGH-…，短横线可省略。" }
    ConnectButton { "Connect this phone" "绑定本手机" }
    CodeForm {
        "A code has 24 letters and digits. Please check it."
        "绑定码为 24 位字母和数字，请核对。"
    }
    CodeRefused {
        "This code is wrong, out of date or was used already. Check it, or ask your bank for a \
         new one."
        "绑定码有误、已过期或已被使用。请核对，或向银行申请新的绑定码。"
    }
    Connecting { "Connecting this phone…" "正在绑定…" }
    Connected { "This phone is connected." "绑定成功。" }
    SignedOut {
        "This phone is not connected any more. If you did not expect this, call your bank. To \
         connect it again you need a new code."
        "本手机已解除绑定。如非本人操作，请联系银行。重新绑定需要新的绑定码。"
    }
    NotConnected {
        "This phone is not connected yet. Connect it, then open the payment again."
        "本手机尚未绑定。请先绑定，再打开这笔付款。"
    }

    // The phone: the list.
    WaitingTitle { "Waiting for you" "等待您确认" }
    NothingWaits { "Nothing waits for you" "暂无待确认的付款" }
    NothingWaitsHint {
        "A payment that needs your confirmation appears here by itself."
        "需要您确认的付款会自动显示在这里。"
    }
    NewPayment { "A new payment waits for you." "有一笔新的付款等待您确认。" }
    PayTo { "To" "付给" }
    CheckPayment { "Review" "查看" }
    HelperConnected {
        "The security device on this computer is connected."
        "本机的安全设备已连接。"
    }

    // A payment.
    PaymentTitle { "Confirm a payment" "确认付款" }
    Amount { "Amount" "金额" }
    Payee { "To" "收款人" }
    PayeeAccount { "Account of the payee" "收款账号" }
    PayerAccount { "From your account" "付款账号" }
    Order { "For" "用途" }
    Initiator { "Asked for by" "发起方" }
    Server { "Your bank's server" "银行服务器" }
    PaymentId { "Number of the payment" "付款编号" }
    ExpiresAt { "Can be confirmed until" "确认截止时间" }
    TimeLeft { "Time left:" "剩余时间：" }
    LeftMinutes { "{min} min {s} s" "{min} 分 {s} 秒" }
    LeftSeconds { "{s} s" "{s} 秒" }
    LeftHours { "{h} h {min} min" "{h} 小时 {min} 分" }
    TimeIsUp { "The time is up" "已超时" }
    OneMinuteLeft { "One minute left." "还剩一分钟。" }
    AlertsTitle { "Please look closely" "请仔细核对" }
    AlertNewPayee {
        "You have not paid this account before."
        "您此前从未向该账户付款。"
    }
    AlertNameDiffers {
        "The name of the payee is not the name that the bank has for this account."
        "收款人名称与该账户的户名不一致。"
    }
    AlertOther { "The bank marks this payment: {name}" "银行提示：{name}" }

    // Confirming.
    ConfirmTitle { "Everything right? Then confirm" "核对无误，请确认" }
    MatchLabel {
        "Number shown where you started the payment"
        "发起付款的页面上显示的两位数字"
    }
    MatchHint {
        "Two digits. No such number, or you did not start a payment? Do not confirm."
        "两位数字。如果没有看到数字，或者您没有发起付款，请不要确认。"
    }
    MatchForm { "Type the two digits." "请输入两位数字。" }
    ConfirmWithDevice { "Confirm with the security device" "用安全设备确认" }
    HelperHint {
        "Your security device shows the payment again and asks for your PIN. Compare both."
        "安全设备会再次显示这笔付款并要求输入 PIN 码，请核对两处内容。"
    }
    LookAtDevice {
        "Now look at your security device: check the payment there and type your PIN."
        "请查看安全设备：核对付款内容并输入 PIN 码。"
    }
    DigitsTitle { "Type the digits of your security device" "输入安全设备上的数字" }
    DigitsHow {
        "Show this code to your security device, check the payment on its display, type your PIN \
         there, and copy the 8 digits that it shows."
        "请用安全设备扫描此二维码，在设备屏幕上核对付款内容并输入 PIN 码，然后将显示的 8 位数字填写在下面。"
    }
    DeviceLabel { "Security device" "安全设备" }
    DigitsLabel { "8 digits from the device" "设备显示的 8 位数字" }
    DigitsForm { "Type the 8 digits that the device shows." "请输入设备显示的 8 位数字。" }
    ConfirmWithDigits { "Confirm the payment" "确认付款" }
    NoDigitsDevice {
        "None of your security devices shows digits. Hold your device to a reader, or start the \
         helper program on the computer that it is plugged into."
        "您的安全设备均不显示数字。请将设备贴近读卡器，或在连接设备的电脑上启动助手程序。"
    }
    NoDevice {
        "No security device of yours can be used for this account. Please ask your bank."
        "该账户没有可用的安全设备，请联系银行。"
    }
    YourDevices { "Your devices:" "您的设备：" }
    QrLabel {
        "Square code with this payment for your security device"
        "供安全设备扫描的付款二维码"
    }
    Sending { "Sending your answer…" "正在提交…" }
    AnswerRefused {
        "Not accepted: the number, the digits or the device does not fit this payment. Check all \
         and try again. After a few wrong tries the payment is stopped."
        "未通过：两位数字、设备数字或安全设备与这笔付款不符。请核对后重试；多次错误后付款将被终止。"
    }
    Reference { "Reference for your bank: {id}" "供银行查询的编号：{id}" }
    AnswerUnknown {
        "The connection broke off. We do not know whether your answer arrived. Do not send it \
         again before this page shows where the payment stands."
        "连接中断，无法确定您的答复是否已送达。请等待页面显示付款状态后再操作。"
    }
    AnsweredAlready {
        "This payment had already ended when your answer came."
        "收到您的答复时，这笔付款已经结束。"
    }
    EndedMeanwhile { "This payment has just ended." "这笔付款刚刚结束。" }
    NotYours {
        "There is no such payment for this phone. It may belong to another account."
        "本手机没有这笔付款，它可能属于其他账户。"
    }

    // The helper.
    HelperGone {
        "The helper program on this computer cannot be reached. Start it again and open the \
         address that it shows; or type the digits of your device."
        "无法连接本机的助手程序。请重新启动并打开它显示的网址，或改为输入设备上的数字。"
    }
    HelperToken {
        "The helper program does not know this page any more. Open the address that it shows now."
        "助手程序与本页面的连接已失效，请打开助手程序当前显示的网址。"
    }
    HelperBusy {
        "The security device is busy with another payment. Finish that first."
        "安全设备正在处理另一笔付款，请先完成那一笔。"
    }
    HelperDeclined {
        "You said no on the security device. Nothing was sent."
        "您在安全设备上选择了取消，未提交任何内容。"
    }
    HelperPinWrong {
        "The PIN was wrong. Nothing was sent. Three wrong PINs block the device."
        "PIN 码错误，未提交任何内容。连续三次错误将锁定设备。"
    }
    HelperPinBlocked {
        "The security device is blocked after too many wrong PINs. Unblock it with your PUK."
        "PIN 码错误次数过多，安全设备已锁定，请用 PUK 码解锁。"
    }
    HelperNoDevice {
        "The security device was not found, or taken away too early. Put it on the reader and try \
         again."
        "未找到安全设备，或设备移开过早。请将设备放在读卡器上重试。"
    }
    HelperRequest {
        "The security device cannot show this payment, so it does not sign it."
        "安全设备无法显示这笔付款，因此不予签名。"
    }

    // Rejecting.
    RejectOpen { "I do not want this payment" "拒绝这笔付款" }
    RejectWhy { "Why?" "原因" }
    ReasonNotMine { "I did not start this" "不是我发起的" }
    ReasonNotMineHint {
        "We tell your bank and lock your account against further payments."
        "我们会通知银行，并冻结您的账户，暂停后续付款。"
    }
    ReasonWrongDetails { "Something is wrong in it" "付款信息有误" }
    ReasonWrongDetailsHint { "Amount, payee or purpose is not right." "金额、收款人或用途不对。" }
    ReasonChangedMind { "I have changed my mind" "我改变主意了" }
    ReasonChangedMindHint { "Nothing else happens." "仅取消这一笔。" }
    ReasonMissing { "Choose a reason." "请选择原因。" }
    RejectButton { "Reject the payment" "拒绝付款" }

    // How it ended.
    BackToList { "All payments" "返回列表" }
    Executed { "Paid" "付款成功" }
    ExecutedText { "The money has gone to the payee." "款项已支付给收款人。" }
    Rejected { "Rejected" "已拒绝" }
    RejectedText { "Nothing was paid." "没有扣款。" }
    RejectedNotMine {
        "Nothing was paid. Your account is locked against further payments, and your bank has \
         been told. Call your bank to unlock it."
        "没有扣款。您的账户已冻结，暂停后续付款，并已通知银行。如需解冻请联系银行。"
    }
    RejectedNotMineShop {
        "Nothing was paid. The payer says that they did not start this payment."
        "没有扣款。付款人表示并未发起这笔付款。"
    }
    RejectedWrongDetails {
        "Nothing was paid. The payer says that something in it is wrong."
        "没有扣款。付款人表示付款信息有误。"
    }
    Expired { "Not confirmed in time" "已超时" }
    ExpiredText {
        "Nothing was paid. If you still want it, start the payment again."
        "没有扣款。如仍需付款，请重新发起。"
    }
    Failed { "Stopped" "已终止" }
    FailedText {
        "Nothing was paid: there were too many wrong answers. Start the payment again."
        "没有扣款：错误次数过多。请重新发起付款。"
    }
    FailedOther { "Nothing was paid: the payment was stopped." "没有扣款：付款已终止。" }
    Cancelled { "Taken back" "已撤销" }
    CancelledText {
        "Nothing was paid. Whoever asked for the payment took it back."
        "没有扣款。发起方已撤销这笔付款。"
    }
    ExecutionFailed { "Confirmed, but not paid" "已确认，但未能付款" }
    WhyFunds { "There is not enough money in the account." "账户余额不足。" }
    WhyFrozen {
        "An account of this payment is locked. Please ask your bank."
        "付款涉及的账户已冻结，请联系银行。"
    }
    WhyClosed {
        "An account of this payment is closed. Please ask your bank."
        "付款涉及的账户已销户，请联系银行。"
    }
    WhyOther {
        "The bank could not carry it out. Please ask your bank."
        "银行未能完成这笔付款，请联系银行。"
    }
    UnderWay { "Being carried out" "处理中" }
    UnderWayText { "The bank is working on it. This page changes by itself." "银行正在处理，页面会自动更新。" }

    // Instead of a page.
    NothingHere { "There is nothing here" "找不到页面" }
    NothingHereText {
        "Check the address, or go to your payments."
        "请检查网址，或返回“我的付款”。"
    }
    NotAllowedHere { "This cannot be opened from here" "无法从此处打开" }
    NotAllowedHereText {
        "Another website tried to open this page. Open it yourself, by its address."
        "其他网站试图打开本页面。请自行输入网址打开。"
    }
    WentWrong { "Something went wrong" "出错了" }
    WentWrongText { "Please try again in a moment." "请稍后再试。" }

    // The checkout.
    CheckoutTitle { "Payment" "付款" }
    CheckoutWaiting { "Waiting for the payer's confirmation" "等待付款人确认" }
    CheckoutHow {
        "Open your payments on your phone, check this payment, and type this number there:"
        "请在手机上打开“我的付款”，核对这笔付款，并输入以下数字："
    }
    CheckoutNumber { "Number to type on your phone" "请在手机上输入的数字" }
    CheckoutNoKey {
        "This page opens only by the link from the shop. Go back to the shop and open the link \
         again."
        "请通过商家提供的链接打开本页面。请返回商家页面重新打开链接。"
    }
    OfflineTitle { "Phone not at hand? Use your security device" "手机不在身边？直接用安全设备" }
    SerialLabel { "Serial number of the device" "设备序列号" }
    SerialHint { "It is printed on the device or shown when it starts." "印在设备上，或在设备启动时显示。" }
    SerialForm { "Type the serial number of your device." "请输入设备序列号。" }
    ExecutedShop { "The payment is done." "付款已完成。" }
    RejectedShop { "Nothing was paid. The payer rejected the payment." "没有扣款。付款人拒绝了这笔付款。" }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn placeholders(text: &str) -> HashSet<&str> {
        text.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect()
    }

    fn is_han(c: char) -> bool {
        matches!(c, '\u{4e00}'..='\u{9fff}')
    }

    #[test]
    fn every_text_speaks_both_languages() {
        for text in Text::ALL {
            let (en, zh, key) = (text.of(Lang::En), text.of(Lang::Zh), text.key());
            assert_eq!(placeholders(en), placeholders(zh), "{key}");
            assert!(!en.trim().is_empty() && !en.chars().any(is_han), "{key}: {en}");
            assert!(zh.chars().any(is_han), "{key}: {zh}");
            for shown in [en, zh] {
                assert_eq!(shown.trim(), shown, "{key}");
                assert!(!shown.contains("  ") && !shown.contains('\n'), "{key}: {shown}");
                assert!(!shown.contains(['<', '>', '&']), "{key}: markup is not text");
            }
            // A sentence that ends in one language ends in the other.
            assert_eq!(en.ends_with('.'), zh.ends_with('。'), "{key}: {en} {zh}");
        }
    }

    #[test]
    fn no_word_of_the_machinery_reaches_people() {
        for text in Text::ALL {
            let shown = text.of(Lang::En).to_lowercase();
            for word in ["ocra", "pki", "token", "http ", "dpop", "api", "sse", "json", "401"] {
                assert!(!shown.contains(word), "{}: {word}", text.key());
            }
        }
    }
}
