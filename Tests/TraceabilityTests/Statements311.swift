extension Specification {
    /// Appendix B of MQTT 3.1.1, in our words. Each line: number, whom it binds, what it asks.
    static let mqtt311 = Specification(
        "MQTT311",
        """
        1.5.3-1   both    strings are well-formed UTF-8 without surrogates; else the receiver closes
        1.5.3-2   both    strings hold no U+0000; else the receiver closes
        1.5.3-3   both    EF BB BF is U+FEFF wherever it stands and is kept
        2.2.2-1   both    reserved flags of the fixed header have the values of table 2.2
        2.2.2-2   both    whoever receives other flags closes
        2.3.1-1   both    SUBSCRIBE, UNSUBSCRIBE and PUBLISH above QoS 0 carry an identifier that is not 0
        2.3.1-2   client  a new packet of these gets an identifier not in use
        2.3.1-3   client  a repetition keeps its identifier, which is in use until acknowledged
        2.3.1-4   server  the same two rules for what a server publishes above QoS 0
        2.3.1-5   both    PUBLISH at QoS 0 has no Packet Identifier
        2.3.1-6   both    PUBACK, PUBREC and PUBREL name the PUBLISH they answer
        2.3.1-7   both    SUBACK and UNSUBACK name the packet they answer
        3.1.0-1   both    the first packet of a client is CONNECT
        3.1.0-2   server  a second CONNECT ends the connection
        3.1.2-1   server  an unknown Protocol Name is not treated as MQTT 3.1.1
        3.1.2-2   server  an unknown Protocol Level is answered with Return Code 1, then closed
        3.1.2-3   server  the reserved Connect Flag is checked, and the client cut when it is set
        3.1.2-4   server  Clean Session 0 resumes the Session, or creates and keeps one
        3.1.2-5   server  a kept Session goes on collecting QoS 1 and 2 messages while its client is away
        3.1.2-6   both    Clean Session 1 discards the earlier Session, and its own ends with the connection
        3.1.2-7   server  retained messages outlive Sessions
        3.1.2-8   server  the Will is stored, and published when the connection ends without DISCONNECT
        3.1.2-9   both    with Will Flag 1, Will Topic and Will Message are in the payload, QoS and Retain count
        3.1.2-10  server  the Will is gone once published or once DISCONNECT came
        3.1.2-11  both    with Will Flag 0, Will QoS and Retain are 0, and the payload has no Will
        3.1.2-12  server  without Will Flag nothing is published when the connection ends
        3.1.2-13  both    Will Flag 0 means Will QoS 0
        3.1.2-14  both    Will QoS is never 3
        3.1.2-15  both    Will Flag 0 means Will Retain 0
        3.1.2-16  server  Will Retain 0: the Will is published not retained
        3.1.2-17  server  Will Retain 1: the Will is published retained
        3.1.2-18  both    User Name Flag 0: no User Name in the payload
        3.1.2-19  both    User Name Flag 1: a User Name in the payload
        3.1.2-20  both    Password Flag 0: no Password in the payload
        3.1.2-21  both    Password Flag 1: a Password in the payload
        3.1.2-22  both    no Password without a User Name
        3.1.2-23  client  something is sent within each Keep Alive, PINGREQ if nothing else
        3.1.2-24  server  after one and a half Keep Alives of silence the client is cut like a lost one
        3.1.3-1   both    order of the CONNECT payload
        3.1.3-2   both    the Client Identifier names the Session on both sides
        3.1.3-3   both    the Client Identifier is there, and first
        3.1.3-4   both    the Client Identifier is a string
        3.1.3-5   server  1 to 23 letters and digits are always a good Client Identifier
        3.1.3-6   server  who sends no Client Identifier, if that is allowed, is given a unique one
        3.1.3-7   client  without a Client Identifier, Clean Session is 1
        3.1.3-8   server  no Client Identifier and Clean Session 0: Return Code 2, then closed
        3.1.3-9   server  a Client Identifier that is refused: Return Code 2, then closed
        3.1.3-10  both    the Will Topic is a string
        3.1.3-11  both    the User Name is a string
        3.1.4-1   server  a CONNECT of the wrong form is closed without CONNACK
        3.1.4-2   server  a connected client of the same Client Identifier is cut
        3.1.4-3   server  Clean Session is applied
        3.1.4-4   server  an accepted CONNECT gets CONNACK 0
        3.1.4-5   server  after a refusal nothing more of the client is handled
        3.2.0-1   server  the first packet to a client is CONNACK
        3.2.2-1   server  Clean Session 1: Session Present 0
        3.2.2-2   server  Clean Session 0 with a stored Session: Session Present 1
        3.2.2-3   server  without a stored Session: Session Present 0
        3.2.2-4   server  a refusal says Session Present 0
        3.2.2-5   server  after a refusal the connection is closed
        3.2.2-6   server  when no Return Code fits, the connection is closed without CONNACK
        3.3.1-1   both    DUP is 1 on what is sent again
        3.3.1-2   both    DUP is 0 at QoS 0
        3.3.1-3   both    DUP towards a subscriber tells only of this delivery
        3.3.1-4   both    QoS is never 3; else the receiver closes
        3.3.1-5   server  RETAIN 1 stores the message and its QoS
        3.3.1-6   server  a new subscription is sent the retained message of each matching topic
        3.3.1-7   server  a QoS 0 message with RETAIN 1 replaces the retained one
        3.3.1-8   server  RETAIN is 1 on what a new subscription brings
        3.3.1-9   server  RETAIN is 0 on what an established subscription brings
        3.3.1-10  server  an empty retained message is delivered and removes what was retained
        3.3.1-11  server  an empty message is never kept as retained
        3.3.1-12  server  RETAIN 0 neither stores nor removes a retained message
        3.3.2-1   both    the Topic Name comes first and is a string
        3.3.2-2   both    a Topic Name holds no wildcard
        3.3.2-3   server  a subscriber is sent only topics that match its filter
        3.3.4-1   both    PUBLISH is answered as its QoS asks
        3.3.5-1   server  overlapping subscriptions: the highest QoS of them
        3.3.5-2   server  a PUBLISH that is not allowed is acknowledged all the same, or the connection closed
        3.6.1-1   both    the flags of PUBREL are 0010; else the server closes
        3.8.1-1   both    the flags of SUBSCRIBE are 0010; else the server closes
        3.8.3-1   both    the filters of SUBSCRIBE are strings
        3.8.3-2   server  a server without wildcards refuses filters that have them
        3.8.3-3   both    SUBSCRIBE holds at least one filter
        3.8.3-4   server  reserved bits behind a filter, or QoS 3, close the connection
        3.8.4-1   server  SUBSCRIBE is answered with SUBACK
        3.8.4-2   server  SUBACK has the Packet Identifier of its SUBSCRIBE
        3.8.4-3   server  the same filter again replaces the subscription, sends retained messages, loses nothing
        3.8.4-4   server  several filters count like several SUBSCRIBEs with one SUBACK
        3.8.4-5   server  SUBACK has a code for every filter: the QoS granted, or failure
        3.8.4-6   server  a message goes out at the lower of its own QoS and the granted one
        3.9.3-1   server  the codes of SUBACK are in the order of the filters
        3.9.3-2   server  SUBACK knows the codes 0, 1, 2 and 0x80
        3.10.1-1  both    the flags of UNSUBSCRIBE are 0010; else the server closes
        3.10.3-1  both    the filters of UNSUBSCRIBE are strings
        3.10.3-2  both    UNSUBSCRIBE holds at least one filter
        3.10.4-1  server  filters are compared byte by byte, and an equal one is deleted
        3.10.4-2  server  after UNSUBSCRIBE no new message is added for the client
        3.10.4-3  server  deliveries of QoS 1 and 2 that began are completed
        3.10.4-4  server  UNSUBSCRIBE is answered with UNSUBACK of the same Packet Identifier
        3.10.4-5  server  also when there was nothing to delete
        3.10.4-6  server  several filters count like several UNSUBSCRIBEs with one UNSUBACK
        3.12.4-1  server  PINGREQ is answered with PINGRESP
        3.14.1-1  server  reserved flags of DISCONNECT are checked, and the client cut when they are set
        3.14.4-1  client  after DISCONNECT the client closes
        3.14.4-2  client  after DISCONNECT the client sends nothing
        3.14.4-3  server  DISCONNECT discards the Will
        4.1.0-1   both    the state of a Session is kept as long as the Session lasts
        4.1.0-2   both    a Session lasts at least as long as its connection
        4.3.1-1   both    sending at QoS 0: PUBLISH with DUP 0
        4.3.2-1   both    sending at QoS 1: a free identifier, DUP 0, unacknowledged until PUBACK
        4.3.2-2   both    receiving at QoS 1: PUBACK once the message is ours; the identifier is then free
        4.3.3-1   both    sending at QoS 2: a free identifier, PUBREL on PUBREC, no PUBLISH after PUBREL
        4.3.3-2   both    receiving at QoS 2: PUBREC, again for each repetition, PUBCOMP on PUBREL, no duplicate
        4.4.0-1   both    a resumed Session sends unacknowledged PUBLISH and PUBREL again, identifiers kept
        4.5.0-1   server  a message is added to every Session with a matching subscription
        4.5.0-2   client  whatever is received is acknowledged
        4.6.0-1   both    repetitions keep the order of the first sending
        4.6.0-2   both    PUBACKs keep the order of their PUBLISHes
        4.6.0-3   both    PUBRECs keep the order of their PUBLISHes
        4.6.0-4   both    PUBRELs keep the order of their PUBRECs
        4.6.0-5   server  topics are ordered unless someone asks otherwise
        4.6.0-6   server  one client's messages of a topic and QoS reach a subscriber in order
        4.7.1-1   both    wildcards are for filters, never for Topic Names
        4.7.1-2   both    # stands alone in the last level
        4.7.1-3   both    + stands alone in its level
        4.7.2-1   server  a filter that begins with a wildcard does not match a topic that begins with $
        4.7.3-1   both    topics and filters have at least one character
        4.7.3-2   both    topics and filters hold no U+0000
        4.7.3-3   both    topics and filters have at most 65 535 bytes
        4.7.3-4   server  matching changes nothing about topics and filters
        4.8.0-1   both    a protocol violation closes the connection
        4.8.0-2   both    a passing error while a packet is handled closes the connection
        6.0.0-1   both    MQTT travels in binary WebSocket frames; any other kind closes the connection
        6.0.0-2   both    packets and WebSocket frames need not be aligned
        6.0.0-3   client  the subprotocol mqtt is offered
        6.0.0-4   server  the subprotocol mqtt is chosen
        7.0.0-1   server  a server that connects to others is a conforming client too
        7.0.0-2   both    no extension is needed to work with others
        7.1.1-1   server  at least one transport gives an ordered, lossless stream of bytes both ways
        7.1.2-1   client  the same for clients
        """)
}
