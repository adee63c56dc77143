region          = "eu-central-1"
name            = "countersign"
zones           = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
hosts           = ["shop.example", "api.example.com"]
certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/00000000-0000-0000-0000-000000000000"
