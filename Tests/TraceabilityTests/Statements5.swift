extension Specification {
    /// Appendix B of MQTT 5.0, in our words. Each line: number, whom it binds, what it asks.
    static let mqtt5 = Specification(
        "MQTT5",
        """
        1.5.4-1   both    strings are well-formed UTF-8 without surrogates
        1.5.4-2   both    strings hold no U+0000
        1.5.4-3   both    EF BB BF is U+FEFF wherever it stands and is kept
        1.5.5-1   both    a Variable Byte Integer takes as few bytes as it can
        1.5.7-1   both    name and value of a string pair are strings
        2.1.3-1   both    reserved flags of the fixed header have the values listed
        2.2.1-2   both    PUBLISH at QoS 0 has no Packet Identifier
        2.2.1-3   client  a new SUBSCRIBE, UNSUBSCRIBE or PUBLISH gets a free identifier that is not 0
        2.2.1-4   server  a new PUBLISH above QoS 0 gets a free identifier that is not 0
        2.2.1-5   both    PUBACK, PUBREC, PUBREL and PUBCOMP name the PUBLISH they belong to
        2.2.1-6   both    SUBACK and UNSUBACK name the packet they answer
        2.2.2-1   both    no properties are a Property Length of 0
        3.1.0-1   both    the first packet of a client is CONNECT
        3.1.0-2   server  a second CONNECT is a Protocol Error and ends the connection
        3.1.2-1   server  a Protocol Name other than MQTT is closed, after 0x84 at most
        3.1.2-2   server  a Protocol Version not spoken is closed, after 0x84 at most
        3.1.2-3   server  the reserved Connect Flag is checked
        3.1.2-4   both    Clean Start 1 discards the earlier Session
        3.1.2-5   server  Clean Start 0 resumes the Session there is
        3.1.2-6   server  Clean Start 0 creates one where there is none
        3.1.2-7   server  the Will is stored with the Session
        3.1.2-8   server  the Will is published after the connection, when its delay is over or the Session ends
        3.1.2-9   both    with Will Flag 1 the payload has Will Properties, Will Topic and Will Payload
        3.1.2-10  server  the Will is gone once published or once DISCONNECT 0x00 came
        3.1.2-11  both    Will Flag 0 means Will QoS 0
        3.1.2-12  both    Will QoS is never 3
        3.1.2-13  both    Will Flag 0 means Will Retain 0
        3.1.2-14  server  Will Retain 0: the Will is published not retained
        3.1.2-15  server  Will Retain 1: the Will is published retained
        3.1.2-16  both    User Name Flag 0: no User Name in the payload
        3.1.2-17  both    User Name Flag 1: a User Name in the payload
        3.1.2-18  both    Password Flag 0: no Password in the payload
        3.1.2-19  both    Password Flag 1: a Password in the payload
        3.1.2-20  client  something is sent within each Keep Alive, PINGREQ if nothing else
        3.1.2-21  client  Server Keep Alive replaces the client's own
        3.1.2-22  server  after one and a half Keep Alives of silence the client is cut like a lost one
        3.1.2-23  both    with a Session Expiry Interval above 0 the Session outlives its connection
        3.1.2-24  server  nothing larger than the client's Maximum Packet Size is sent
        3.1.2-25  server  what is too large is dropped and counts as sent
        3.1.2-26  server  no Topic Alias above the client's maximum
        3.1.2-27  server  no Topic Alias at all without such a maximum
        3.1.2-28  server  Response Information only when asked for
        3.1.2-29  server  with Request Problem Information 0, no Reason String or User Property on most packets
        3.1.2-30  client  who names an Authentication Method sends only AUTH and DISCONNECT before CONNACK
        3.1.3-1   both    order of the CONNECT payload
        3.1.3-2   both    the Client Identifier names the Session on both sides
        3.1.3-3   both    the Client Identifier is there, and first
        3.1.3-4   both    the Client Identifier is a string
        3.1.3-5   server  1 to 23 letters and digits are always a good Client Identifier
        3.1.3-6   server  who sends no Client Identifier is assigned a unique one
        3.1.3-7   server  the assigned one counts as sent by the client and is told in CONNACK
        3.1.3-8   server  a Client Identifier that is refused is closed, after 0x85 at most
        3.1.3-9   server  a client that returns within the Will Delay keeps its Will from being sent
        3.1.3-10  server  the Will's User Properties are published in their order
        3.1.3-11  both    the Will Topic is a string
        3.1.3-12  both    the User Name is a string
        3.1.4-1   server  a CONNECT of the wrong form closes the connection
        3.1.4-2   server  a CONNECT that fails further checks closes the connection
        3.1.4-3   server  a connected client of the same Client Identifier is told 0x8E and cut
        3.1.4-4   server  Clean Start is applied
        3.1.4-5   server  an accepted CONNECT gets CONNACK 0x00
        3.1.4-6   server  after a refusal nothing more of the client is handled but AUTH
        3.2.0-1   server  CONNACK 0x00 comes before anything but AUTH
        3.2.0-2   server  one CONNACK on a connection
        3.2.2-1   server  the reserved bits of the Connect Acknowledge Flags are 0
        3.2.2-2   server  Clean Start 1: Session Present 0
        3.2.2-3   server  Clean Start 0: Session Present says whether there is a Session
        3.2.2-4   client  Session Present without a Session of one's own: close
        3.2.2-5   client  no Session Present: discard one's own
        3.2.2-6   server  a refusal says Session Present 0
        3.2.2-7   server  after a CONNACK of 0x80 or above the connection is closed
        3.2.2-8   server  CONNACK has one of its Reason Codes
        3.2.2-9   server  a server without QoS 1 or 2 says so by Maximum QoS
        3.2.2-10  server  such a server still takes SUBSCRIBE of any QoS
        3.2.2-11  client  no PUBLISH above the server's Maximum QoS
        3.2.2-12  server  a Will above the server's Maximum QoS is refused
        3.2.2-13  server  a retained Will is refused where nothing is retained
        3.2.2-14  client  no RETAIN 1 where Retain Available is 0
        3.2.2-15  client  nothing larger than the server's Maximum Packet Size is sent
        3.2.2-16  server  the Assigned Client Identifier is no other Session's
        3.2.2-17  client  no Topic Alias above the server's maximum
        3.2.2-18  client  no Topic Alias at all without such a maximum
        3.2.2-19  server  CONNACK leaves out a Reason String that would make it too large
        3.2.2-20  server  CONNACK leaves out User Properties that would make it too large
        3.2.2-21  client  Server Keep Alive replaces the client's own
        3.2.2-22  server  without Server Keep Alive the client's own holds
        3.3.1-1   both    DUP is 1 on what is sent again
        3.3.1-2   both    DUP is 0 at QoS 0
        3.3.1-3   both    DUP towards a subscriber tells only of this delivery
        3.3.1-4   both    QoS is never 3
        3.3.1-5   server  RETAIN 1 replaces the retained message of the topic
        3.3.1-6   server  an empty retained message is delivered and removes what was retained
        3.3.1-7   server  an empty message is never kept as retained
        3.3.1-8   server  RETAIN 0 neither stores nor removes a retained message
        3.3.1-9   server  Retain Handling 0 sends the matching retained messages
        3.3.1-10  server  Retain Handling 1 sends them to a new subscription only
        3.3.1-11  server  Retain Handling 2 sends none
        3.3.1-12  server  Retain As Published 0 forwards with RETAIN 0
        3.3.1-13  server  Retain As Published 1 forwards RETAIN as it came
        3.3.2-1   both    the Topic Name comes first and is a string
        3.3.2-2   both    a Topic Name holds no wildcard
        3.3.2-3   server  a subscriber is sent only topics that match its filter
        3.3.2-4   server  Payload Format Indicator is passed on unchanged
        3.3.2-5   server  a copy whose time is over before its delivery began is dropped
        3.3.2-6   server  Message Expiry Interval goes out less the time spent here
        3.3.2-7   both    Topic Aliases hold for one connection
        3.3.2-8   both    no Topic Alias is 0
        3.3.2-9   client  no Topic Alias above the server's maximum
        3.3.2-10  client  every Topic Alias up to one's own maximum is taken
        3.3.2-11  server  no Topic Alias above the client's maximum
        3.3.2-12  server  every Topic Alias up to one's own maximum is taken
        3.3.2-13  both    the Response Topic is a string
        3.3.2-14  both    the Response Topic holds no wildcard
        3.3.2-15  server  the Response Topic is passed on unchanged
        3.3.2-16  server  Correlation Data is passed on unchanged
        3.3.2-17  server  every User Property is passed on unchanged
        3.3.2-18  server  User Properties keep their order
        3.3.2-19  both    the Content Type is a string
        3.3.2-20  server  the Content Type is passed on unchanged
        3.3.4-1   both    PUBLISH is answered as its QoS asks
        3.3.4-2   server  overlapping subscriptions: the highest QoS of them
        3.3.4-3   server  the Subscription Identifiers of the matching subscriptions are sent along
        3.3.4-4   server  a single copy carries all of them
        3.3.4-5   server  one copy for each subscription carries its own
        3.3.4-6   client  no Subscription Identifier towards the server
        3.3.4-7   client  no more PUBLISHes in flight than the server's Receive Maximum
        3.3.4-8   client  a full quota delays nothing but PUBLISH
        3.3.4-9   server  no more PUBLISHes in flight than the client's Receive Maximum
        3.3.4-10  server  a full quota delays nothing but PUBLISH
        3.4.2-1   both    PUBACK has one of its Reason Codes
        3.4.2-2   both    PUBACK leaves out a Reason String that would make it too large
        3.4.2-3   both    PUBACK leaves out User Properties that would make it too large
        3.5.2-1   both    PUBREC has one of its Reason Codes
        3.5.2-2   both    PUBREC leaves out a Reason String that would make it too large
        3.5.2-3   both    PUBREC leaves out User Properties that would make it too large
        3.6.1-1   both    the flags of PUBREL are 0010; else the server closes
        3.6.2-1   both    PUBREL has one of its Reason Codes
        3.6.2-2   both    PUBREL leaves out a Reason String that would make it too large
        3.6.2-3   both    PUBREL leaves out User Properties that would make it too large
        3.7.2-1   both    PUBCOMP has one of its Reason Codes
        3.7.2-2   both    PUBCOMP leaves out a Reason String that would make it too large
        3.7.2-3   both    PUBCOMP leaves out User Properties that would make it too large
        3.8.1-1   both    the flags of SUBSCRIBE are 0010; else the server closes
        3.8.3-1   both    the filters of SUBSCRIBE are strings
        3.8.3-2   both    SUBSCRIBE holds at least one filter with its options
        3.8.3-3   server  No Local keeps a client's own messages from it
        3.8.3-4   both    No Local on a Shared Subscription is a Protocol Error
        3.8.3-5   server  reserved bits of the Subscription Options make SUBSCRIBE malformed
        3.8.4-1   server  SUBSCRIBE is answered with SUBACK
        3.8.4-2   server  SUBACK has the Packet Identifier of its SUBSCRIBE
        3.8.4-3   server  the same filter again replaces the subscription
        3.8.4-4   server  replacing sends retained messages as Retain Handling says and loses nothing
        3.8.4-5   server  several filters count like several SUBSCRIBEs with one SUBACK
        3.8.4-6   server  SUBACK has a Reason Code for every filter
        3.8.4-7   server  the code is the QoS granted, or says that it failed
        3.8.4-8   server  a message goes out at the lower of its own QoS and the granted one
        3.9.2-1   server  SUBACK leaves out a Reason String that would make it too large
        3.9.2-2   server  SUBACK leaves out User Properties that would make it too large
        3.9.3-1   server  the codes of SUBACK are in the order of the filters
        3.9.3-2   server  SUBACK has Subscribe Reason Codes
        3.10.1-1  both    the flags of UNSUBSCRIBE are 0010; else the server closes
        3.10.3-1  both    the filters of UNSUBSCRIBE are strings
        3.10.3-2  both    UNSUBSCRIBE holds at least one filter
        3.10.4-1  server  filters are compared character by character, and an equal one is deleted
        3.10.4-2  server  after UNSUBSCRIBE no new message is added for the client
        3.10.4-3  server  deliveries of QoS 1 and 2 that began are completed
        3.10.4-4  server  UNSUBSCRIBE is answered with UNSUBACK
        3.10.4-5  server  UNSUBACK has the same Packet Identifier, also when there was nothing to delete
        3.10.4-6  server  several filters count like several UNSUBSCRIBEs with one UNSUBACK
        3.11.2-1  server  UNSUBACK leaves out a Reason String that would make it too large
        3.11.2-2  server  UNSUBACK leaves out User Properties that would make it too large
        3.11.3-1  server  the codes of UNSUBACK are in the order of the filters
        3.11.3-2  server  UNSUBACK has Unsubscribe Reason Codes
        3.12.4-1  server  PINGREQ is answered with PINGRESP
        3.14.0-1  server  no DISCONNECT before an accepting CONNACK
        3.14.1-1  both    reserved flags of DISCONNECT are checked and answered with 0x81
        3.14.2-1  both    DISCONNECT has one of its Reason Codes
        3.14.2-2  server  a server names no Session Expiry Interval in DISCONNECT
        3.14.2-3  both    DISCONNECT leaves out a Reason String that would make it too large
        3.14.2-4  both    DISCONNECT leaves out User Properties that would make it too large
        3.14.4-1  both    after DISCONNECT its sender sends nothing
        3.14.4-2  both    after DISCONNECT its sender closes
        3.14.4-3  server  DISCONNECT 0x00 discards the Will
        3.15.1-1  both    the flags of AUTH are 0; else the receiver closes
        3.15.2-1  both    AUTH has one of its Reason Codes
        3.15.2-2  both    AUTH leaves out a Reason String that would make it too large
        3.15.2-3  both    AUTH leaves out User Properties that would make it too large
        4.1.0-1   both    a Session is not discarded while it is connected
        4.1.0-2   server  a Session is discarded when it is not connected and its Expiry Interval is over
        4.2.0-1   both    at least one transport gives an ordered, lossless stream of bytes both ways
        4.3.1-1   both    sending at QoS 0: PUBLISH with DUP 0
        4.3.2-1   both    sending at QoS 1: a free identifier for each new message
        4.3.2-2   both    sending at QoS 1: first with DUP 0
        4.3.2-3   both    sending at QoS 1: unacknowledged until PUBACK
        4.3.2-4   both    receiving at QoS 1: PUBACK once the message is ours
        4.3.2-5   both    receiving at QoS 1: after PUBACK the identifier stands for a new message
        4.3.3-1   both    sending at QoS 2: a free identifier for each new message
        4.3.3-2   both    sending at QoS 2: first with DUP 0
        4.3.3-3   both    sending at QoS 2: unacknowledged until PUBREC
        4.3.3-4   both    sending at QoS 2: PUBREL on a PUBREC below 0x80, same identifier
        4.3.3-5   both    sending at QoS 2: PUBREL is unacknowledged until PUBCOMP
        4.3.3-6   both    sending at QoS 2: no PUBLISH after its PUBREL
        4.3.3-7   both    sending at QoS 2: what was sent does not expire
        4.3.3-8   both    receiving at QoS 2: PUBREC once the message is ours
        4.3.3-9   both    receiving at QoS 2: after PUBREC of 0x80 or above the identifier is free
        4.3.3-10  both    receiving at QoS 2: repetitions get PUBREC and are not delivered again
        4.3.3-11  both    receiving at QoS 2: PUBREL is answered with PUBCOMP, same identifier
        4.3.3-12  both    receiving at QoS 2: after PUBCOMP the identifier stands for a new message
        4.3.3-13  both    receiving at QoS 2: expiry does not stop the exchange
        4.4.0-1   both    a resumed Session sends unacknowledged PUBLISH and PUBREL again, and only then
        4.4.0-2   both    PUBACK or PUBREC of 0x80 or above settles the PUBLISH for good
        4.5.0-1   server  a message is added to every Session with a matching subscription
        4.5.0-2   client  whatever is received is acknowledged
        4.6.0-1   client  repetitions keep the order of the first sending
        4.6.0-2   client  PUBACKs keep the order of their PUBLISHes
        4.6.0-3   client  PUBRECs keep the order of their PUBLISHes
        4.6.0-4   client  PUBRELs keep the order of their PUBRECs
        4.6.0-5   server  one client's messages of an ordered topic and QoS reach a subscriber in order
        4.6.0-6   server  every topic is ordered for subscriptions that are not shared
        4.7.0-1   both    wildcards are for filters, never for Topic Names
        4.7.1-1   both    # stands alone in the last level
        4.7.1-2   both    + stands alone in its level
        4.7.2-1   server  a filter that begins with a wildcard does not match a topic that begins with $
        4.7.3-1   both    topics and filters have at least one character
        4.7.3-2   both    topics and filters hold no U+0000
        4.7.3-3   both    topics and filters have at most 65 535 bytes
        4.7.3-4   server  matching changes nothing about topics and filters
        4.8.2-1   both    a shared filter begins with $share/ and a ShareName
        4.8.2-2   both    a ShareName holds no / + #, and / and a filter come behind it
        4.8.2-3   server  each member gets messages at its own granted QoS
        4.8.2-4   server  a QoS 2 delivery to a member is completed when it returns
        4.8.2-5   server  a QoS 2 message whose member's Session ended goes to no other
        4.8.2-6   server  a message that a member refuses goes to no other
        4.9.0-1   both    the send quota begins at the Receive Maximum or below, not at 0
        4.9.0-2   both    at quota 0 no PUBLISH above QoS 0 is sent
        4.9.0-3   both    at quota 0 every other packet is still handled and answered
        4.12.0-1  server  an unsupported Authentication Method is closed, after 0x8C or 0x87 at most
        4.12.0-2  server  AUTH that asks for more has 0x18
        4.12.0-3  client  AUTH that answers has 0x18
        4.12.0-4  server  an authentication that is refused is closed
        4.12.0-5  both    AUTH and CONNACK name the method of CONNECT
        4.12.0-6  server  without a method in CONNECT, no AUTH and no method in CONNACK
        4.12.0-7  client  without a method in CONNECT, no AUTH
        4.12.1-1  client  authenticating again uses the same method
        4.12.1-2  both    authenticating again in vain closes the connection
        4.13.1-1  server  a Malformed Packet or Protocol Error closes the connection
        4.13.2-1  both    CONNACK or DISCONNECT of 0x80 or above means closing, sent or not
        6.0.0-1   both    MQTT travels in binary WebSocket frames; any other kind closes the connection
        6.0.0-2   both    packets and WebSocket frames need not be aligned
        6.0.0-3   client  the subprotocol mqtt is offered
        6.0.0-4   server  the subprotocol mqtt is chosen
        """)
}
