import MQTT

/// Packets and their bytes, each derived by hand from the specification; both directions are tested.
enum Examples {
    static let all = connect + connack + publish + acknowledgements + subscribing + others

    static let connect: [Example] = [
        Example(
            "CONNECT smallest", .v3_1_1, to: .server,
            .connect(Connect(version: .v3_1_1, clientIdentifier: "")), "10 0C 00 04 'MQTT' 04 02 00 00 00 00"),
        Example(
            "CONNECT, section 3.1", .v3_1, to: .server,
            .connect(
                Connect(
                    version: .v3_1, clientIdentifier: "press-12", cleanStart: false, keepAliveSeconds: 10,
                    userName: "u", password: [0x70, 0xFF],
                    will: Will(message: message("w", "gone"), qos: .atLeastOnce, retain: true))),
            "10 [ 00 06 'MQIsdp' 03 EC 00 0A s'press-12' s'w' s'gone' s'u' 00 02 70 FF ]"),
        Example(
            "CONNECT of a bridge", .v3_1, to: .server,
            .connect(Connect(version: .v3_1, clientIdentifier: "b", isBridge: true)),
            "10 [ 00 06 'MQIsdp' 83 02 00 00 s'b' ]"),
        Example(
            "CONNECT of a bridge", .v3_1_1, to: .server,
            .connect(Connect(version: .v3_1_1, clientIdentifier: "b", cleanStart: false, isBridge: true)),
            "10 [ 00 04 'MQTT' 84 00 00 00 s'b' ]"),
        // [MQTT311-3.1.3-1]
        Example(
            "CONNECT with a full payload", .v3_1_1, to: .server,
            .connect(
                Connect(
                    version: .v3_1_1, clientIdentifier: "c", userName: "u", password: [1],
                    will: Will(message: message("w", "gone"), qos: .atMostOnce, retain: false))),
            "10 [ 00 04 'MQTT' 04 C6 00 00 s'c' s'w' s'gone' s'u' 00 01 01 ]"),
        Example(
            "CONNECT with a Will at QoS 2, empty", .v3_1_1, to: .server,
            .connect(
                Connect(
                    version: .v3_1_1, clientIdentifier: "c", keepAliveSeconds: 65535, userName: "",
                    will: Will(message: message("w/x", ""), qos: .exactlyOnce, retain: false))),
            "10 [ 00 04 'MQTT' 04 96 FF FF s'c' s'w/x' 00 00 00 00 ]"),
        Example(
            "CONNECT smallest", .v5_0, to: .server, .connect(Connect(clientIdentifier: "")),
            "10 0D 00 04 'MQTT' 05 02 00 00 00 00 00"),
        // [MQTT5-3.1.3-1]
        Example(
            "CONNECT with a full payload", .v5_0, to: .server,
            .connect(
                Connect(
                    clientIdentifier: "c", userName: "u", password: [1],
                    will: Will(message: message("w", "gone"), qos: .exactlyOnce, retain: false))),
            "10 [ 00 04 'MQTT' 05 D6 00 00 [ ] s'c' [ ] s'w' s'gone' s'u' 00 01 01 ]"),
        Example(
            "CONNECT with a Password alone", .v5_0, to: .server,
            .connect(Connect(clientIdentifier: "c", password: [1])),
            "10 [ 00 04 'MQTT' 05 42 00 00 [ ] s'c' 00 01 01 ]"),
        Example(
            "CONNECT with every property", .v5_0, to: .server,
            .connect(
                Connect(
                    clientIdentifier: "c", cleanStart: false, keepAliveSeconds: 60, sessionExpirySeconds: 300,
                    receiveMaximum: 20, maximumPacketSize: 65536, topicAliasMaximum: 9,
                    requestResponseInformation: true, requestProblemInformation: false,
                    authenticationMethod: "m", authenticationData: [7],
                    userProperties: [UserProperty("k", "v")])),
            """
            10 [ 00 04 'MQTT' 05 00 00 3C
            [ 11 00 00 01 2C  21 00 14  27 00 01 00 00  22 00 09  19 01  17 00  15 s'm'  16 00 01 07  26 s'k' s'v' ]
            s'c' ]
            """),
        Example(
            "CONNECT with a Will with properties", .v5_0, to: .server,
            .connect(
                Connect(
                    clientIdentifier: "c",
                    will: Will(
                        message: message(
                            "w", "x",
                            ForwardedProperties(
                                payloadIsUTF8: true, contentType: "t", responseTopic: "r",
                                correlationData: [9], userProperties: [UserProperty("k", "")])),
                        qos: .atMostOnce, retain: true, delaySeconds: 5, messageExpirySeconds: 6))),
            """
            10 [ 00 04 'MQTT' 05 26 00 00 [ ] s'c'
            [ 18 00 00 00 05  02 00 00 00 06  01 01  03 s't'  08 s'r'  09 00 01 09  26 s'k' 00 00 ]
            s'w' s'x' ]
            """),
    ]

    static let connack: [Example] = [
        Example(
            "CONNACK", .v3_1, to: .client, .connack(Connack(sessionPresent: false, reason: .success)),
            "20 02 00 00"),
        Example(
            "CONNACK with Session Present", .v3_1_1, to: .client,
            .connack(Connack(sessionPresent: true, reason: .success)), "20 02 01 00"),
        Example(
            "CONNACK refuses the version", .v3_1_1, to: .client,
            .connack(Connack(sessionPresent: false, reason: .unsupportedProtocolVersion)), "20 02 00 01"),
        Example(
            "CONNACK refuses the identifier", .v3_1_1, to: .client,
            .connack(Connack(sessionPresent: false, reason: .clientIdentifierNotValid)), "20 02 00 02"),
        Example(
            "CONNACK unavailable", .v3_1_1, to: .client,
            .connack(Connack(sessionPresent: false, reason: .serverUnavailable)), "20 02 00 03"),
        Example(
            "CONNACK bad user name", .v3_1, to: .client,
            .connack(Connack(sessionPresent: false, reason: .badUserNameOrPassword)), "20 02 00 04"),
        Example(
            "CONNACK not authorised", .v3_1_1, to: .client,
            .connack(Connack(sessionPresent: false, reason: .notAuthorized)), "20 02 00 05"),
        // [MQTT5-3.2.2-1]
        Example(
            "CONNACK", .v5_0, to: .client, .connack(Connack(sessionPresent: true, reason: .success)),
            "20 03 01 00 00"),
        Example(
            "CONNACK refuses", .v5_0, to: .client,
            .connack(Connack(sessionPresent: false, reason: .banned, reasonString: "no")),
            "20 [ 00 8A [ 1F s'no' ] ]"),
        Example(
            "CONNACK with every property", .v5_0, to: .client,
            .connack(
                Connack(
                    sessionPresent: false, reason: .success, sessionExpirySeconds: 1, receiveMaximum: 2,
                    maximumQoS: .atLeastOnce, retainAvailable: false, maximumPacketSize: 3,
                    assignedClientIdentifier: "a", topicAliasMaximum: 4, reasonString: "r",
                    userProperties: [UserProperty("k", "v"), UserProperty("k", "v")],
                    wildcardSubscriptionAvailable: true, subscriptionIdentifiersAvailable: false,
                    sharedSubscriptionAvailable: true, serverKeepAliveSeconds: 5, responseInformation: "i",
                    serverReference: "s", authenticationMethod: "m", authenticationData: [])),
            """
            20 [ 00 00 [ 11 00 00 00 01  21 00 02  24 01  25 00  27 00 00 00 03  12 s'a'  22 00 04  1F s'r'
            26 s'k' s'v' 26 s'k' s'v'  28 01  29 00  2A 01  13 00 05  1A s'i'  1C s's'  15 s'm'  16 00 00 ] ]
            """),
    ]

    static let publish: [Example] =
        [ProtocolVersion.v3_1, .v3_1_1].flatMap { version in
            [
                // [MQTT311-2.3.1-5]
                Example(
                    "PUBLISH at QoS 0", version, to: .server,
                    .publish(Publish(message: message("a/b", "hello"))),
                    "30 0A 00 03 'a/b' 'hello'"),
                Example(
                    "PUBLISH at QoS 1 again", version, to: .client,
                    .publish(Publish(message: message("t", ""), qos: .atLeastOnce, id: 10, duplicate: true)),
                    "3A 05 00 01 't' 00 0A"),
                Example(
                    "PUBLISH at QoS 2 retained", version, to: .server,
                    .publish(Publish(message: message("ä", "x"), qos: .exactlyOnce, id: 65535, retain: true)),
                    "35 07 00 02 C3 A4 FF FF 'x'"),
            ]
        } + [
            // [MQTT5-2.2.1-2]
            Example(
                "PUBLISH without properties", .v5_0, to: .server,
                .publish(Publish(message: message("a/b", "hello"))),
                "30 0B 00 03 'a/b' 00 'hello'"),
            Example(
                "PUBLISH by Topic Alias", .v5_0, to: .server,
                .publish(Publish(message: message("", "x"), qos: .atLeastOnce, id: 1, topicAlias: 3)),
                "32 [ 00 00 00 01 [ 23 00 03 ] 'x' ]"),
            Example(
                "PUBLISH with every property", .v5_0, to: .client,
                .publish(
                    Publish(
                        message: message(
                            "t", "payload",
                            ForwardedProperties(
                                payloadIsUTF8: true, contentType: "text/plain", responseTopic: "r/s",
                                correlationData: [0, 255],
                                userProperties: [UserProperty("a", "1"), UserProperty("a", "2")])),
                        qos: .exactlyOnce, id: 0x8001, retain: true, duplicate: true,
                        messageExpirySeconds: 3600,
                        topicAlias: 1, subscriptionIdentifiers: [1, 128, 268_435_455])),
                """
                3D [ s't' 80 01 [ 02 00 00 0E 10  23 00 01  0B 01  0B 80 01  0B FF FF FF 7F  01 01  03 s'text/plain'
                08 s'r/s'  09 00 02 00 FF  26 s'a' s'1'  26 s'a' s'2' ] 'payload' ]
                """),
        ]

    static let acknowledgements: [Example] =
        [ProtocolVersion.v3_1, .v3_1_1, .v5_0].flatMap { version in
            [
                Example("PUBACK", version, to: .server, .puback(Acknowledgement(7)), "40 02 00 07"),
                Example("PUBREC", version, to: .client, .pubrec(Acknowledgement(0x1234)), "50 02 12 34"),
                Example("PUBREL", version, to: .server, .pubrel(Acknowledgement(7)), "62 02 00 07"),
                Example("PUBCOMP", version, to: .client, .pubcomp(Acknowledgement(7)), "70 02 00 07"),
            ]
        } + [
            Example(
                "PUBACK with a Reason Code", .v5_0, to: .client, .puback(Acknowledgement(7, .quotaExceeded)),
                "40 03 00 07 97"),
            Example(
                "PUBREC with properties", .v5_0, to: .server,
                .pubrec(
                    Acknowledgement(
                        7, .noMatchingSubscribers, reasonString: "none",
                        userProperties: [UserProperty("k", "v")])),
                "50 [ 00 07 10 [ 1F s'none' 26 s'k' s'v' ] ]"),
            Example(
                "PUBREL of an unknown identifier", .v5_0, to: .client,
                .pubrel(Acknowledgement(7, .packetIdentifierNotFound)), "62 03 00 07 92"),
            Example(
                "PUBCOMP with a string and success", .v5_0, to: .server,
                .pubcomp(Acknowledgement(7, reasonString: "")), "70 [ 00 07 00 [ 1F 00 00 ] ]"),
        ]

    static let subscribing: [Example] =
        [ProtocolVersion.v3_1, .v3_1_1].flatMap { version in
            [
                Example(
                    "SUBSCRIBE", version, to: .server,
                    .subscribe(
                        Subscribe(
                            id: 10,
                            requests: [
                                SubscriptionRequest(filter: filter("a/b"), maximumQoS: .atLeastOnce),
                                SubscriptionRequest(filter: filter("c/+/#"), maximumQoS: .exactlyOnce),
                            ])), "82 [ 00 0A s'a/b' 01 s'c/+/#' 02 ]"),
                Example(
                    "SUBACK", version, to: .client,
                    .suback(Suback(id: 10, reasons: [.grantedQoS0, .grantedQoS2, .unspecifiedError])),
                    "90 05 00 0A 00 02 80"),
                Example(
                    "UNSUBSCRIBE", version, to: .server,
                    .unsubscribe(Unsubscribe(id: 10, filters: [filter("a/b"), filter("#")])),
                    "A2 [ 00 0A s'a/b' s'#' ]"),
                Example(
                    "UNSUBACK", version, to: .client, .unsuback(Unsuback(id: 10, reasons: [])), "B0 02 00 0A"),
            ]
        } + [
            Example(
                "SUBSCRIBE with every option", .v5_0, to: .server,
                .subscribe(
                    Subscribe(
                        id: 10,
                        requests: [
                            SubscriptionRequest(
                                filter: filter("a"), maximumQoS: .exactlyOnce, noLocal: true,
                                retainAsPublished: true,
                                retainHandling: .doNotSend),
                            SubscriptionRequest(
                                filter: filter("$share/g/+"), maximumQoS: .atMostOnce,
                                retainHandling: .sendIfNewSubscription),
                        ], subscriptionIdentifier: 300, userProperties: [UserProperty("k", "v")])),
                "82 [ 00 0A [ 0B AC 02 26 s'k' s'v' ] s'a' 2E s'$share/g/+' 10 ]"),
            Example(
                "SUBACK", .v5_0, to: .client,
                .suback(
                    Suback(
                        id: 10, reasons: [.grantedQoS1, .notAuthorized], reasonString: "r",
                        userProperties: [UserProperty("k", "v")])),
                "90 [ 00 0A [ 1F s'r' 26 s'k' s'v' ] 01 87 ]"),
            Example(
                "UNSUBSCRIBE", .v5_0, to: .server,
                .unsubscribe(
                    Unsubscribe(id: 10, filters: [filter("a/b")], userProperties: [UserProperty("k", "v")])),
                "A2 [ 00 0A [ 26 s'k' s'v' ] s'a/b' ]"),
            Example(
                "UNSUBACK", .v5_0, to: .client,
                .unsuback(Unsuback(id: 10, reasons: [.success, .noSubscriptionExisted])),
                "B0 05 00 0A 00 00 11"),
        ]

    static let others: [Example] =
        [ProtocolVersion.v3_1, .v3_1_1, .v5_0].flatMap { version in
            [
                Example("PINGREQ", version, to: .server, .pingreq, "C0 00"),
                Example("PINGRESP", version, to: .client, .pingresp, "D0 00"),
                Example("DISCONNECT", version, to: .server, .disconnect(Disconnect()), "E0 00"),
            ]
        } + [
            Example(
                "DISCONNECT with Will", .v5_0, to: .server, .disconnect(Disconnect(.disconnectWithWill)),
                "E0 01 04"),
            Example(
                "DISCONNECT with properties", .v5_0, to: .server,
                .disconnect(
                    Disconnect(
                        sessionExpirySeconds: 0, reasonString: "bye", userProperties: [UserProperty("k", "v")]
                    )),
                "E0 [ 00 [ 11 00 00 00 00  1F s'bye'  26 s'k' s'v' ] ]"),
            Example(
                "DISCONNECT by the server", .v5_0, to: .client,
                .disconnect(Disconnect(.useAnotherServer, serverReference: "other")),
                "E0 [ 9C [ 1C s'other' ] ]"),
            Example("AUTH success", .v5_0, to: .client, .auth(Auth(.success)), "F0 00"),
            Example(
                "AUTH continues", .v5_0, to: .server,
                .auth(
                    Auth(
                        .continueAuthentication, authenticationMethod: "m", authenticationData: [1, 2],
                        reasonString: "r", userProperties: [UserProperty("k", "v")])),
                "F0 [ 18 [ 15 s'm'  16 00 02 01 02  1F s'r'  26 s'k' s'v' ] ]"),
            Example(
                "AUTH again", .v5_0, to: .server, .auth(Auth(.reauthenticate, authenticationMethod: "m")),
                "F0 [ 19 [ 15 s'm' ] ]"),
        ]
}
