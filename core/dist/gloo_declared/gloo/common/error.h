#pragma once  // see README.md: nothing of it is named
